#include "runtime/activations.h"

#include <algorithm>

#include "formats/checked.h"
#include "runtime/carver.h"

namespace sluice {
namespace {

constexpr int64_t kSmallestGroup = 16;
constexpr uint64_t kAlignment = Carver::kAlignment;

int64_t WidestBuffer(const ModelDescription& model) {
  return *std::max_element(model.buffer_widths.begin(), model.buffer_widths.end());
}

// Of rows of `widest` channels, a multiple of 32.
uint64_t Bf16Values(int64_t max_tokens, uint64_t widest) {
  return RoundUp(static_cast<uint64_t>(max_tokens), kBf16Tokens) * widest;
}

// Floats of a pair of a split and a token, of the layer that needs most.
int64_t PartialFloats(const ModelDescription& model) {
  int64_t floats = 0;
  for (const GroupDescription& group : model.groups) {
    for (const Step& step : group.steps) {
      const auto* attention = std::get_if<AttentionStep>(&step);
      if (attention == nullptr) continue;
      floats = std::max(floats, attention->num_heads * AttentionPartialFloats(attention->head_dim));
    }
  }
  return floats;
}

}  // namespace

int64_t QuantizedStride(int64_t cols) {
  const auto padded = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(cols), 32));
  if (padded < 1024) return padded;
  // Kernels read the channels of several tokens side by side: rows a multiple of 4 KiB apart would
  // share the same few places of a cache, odd multiples of 512 bytes do not.
  const auto parts = static_cast<int64_t>(CeilDiv(static_cast<uint64_t>(padded), 512));
  return (parts | 1) * 512;
}

uint64_t Activations::SizeBytes(const ModelDescription& model, int64_t max_tokens, bool on_device,
                                bool with_bf16, bool with_f16) {
  const auto tokens = static_cast<uint64_t>(max_tokens);
  const uint64_t widest = RoundUp(static_cast<uint64_t>(WidestBuffer(model)), 32);
  const auto stride = static_cast<uint64_t>(QuantizedStride(WidestBuffer(model)));
  uint64_t bytes = kVectorScratches * (widest * 4 + kAlignment);
  for (int64_t width : model.buffer_widths) {
    bytes += tokens * static_cast<uint64_t>(width) * 4 + kAlignment;
  }
  if (with_bf16) bytes += Bf16Values(max_tokens, widest) * sizeof(uint16_t) + kAlignment;
  if (with_f16) {
    bytes += tokens * (widest * sizeof(uint16_t) + sizeof(int32_t)) + 2 * kAlignment;
  }
  if (!on_device) {
    bytes += kAttentionParts * static_cast<uint64_t>(PartialFloats(model)) * 4 + kAlignment;
  }
  return bytes + tokens * (stride + 8 * (widest / kSmallestGroup)) + 3 * kAlignment;
}

Result<Activations> Activations::Create(const ModelDescription& model, int64_t max_tokens,
                                        Device* device, bool with_bf16, bool with_f16) {
  Result<Arena> arena =
      Arena::Allocate(device, SizeBytes(model, max_tokens, device != nullptr, with_bf16, with_f16));
  if (!arena.ok()) return arena.status().WithContext("activations");
  Activations activations;
  activations.arena_ = std::move(*arena);
  activations.max_tokens_ = max_tokens;
  activations.widths_ = model.buffer_widths;
  Carver carver(activations.arena_.data());
  for (size_t i = 0; i < kBufferCount; ++i) {
    activations.buffers_[i] = carver.Take<float>(max_tokens * model.buffer_widths[i]);
  }
  const auto widest = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(WidestBuffer(model)), 32));
  for (float*& scratch : activations.vector_scratch_) scratch = carver.Take<float>(widest);
  activations.quantized_values_ = carver.Take<int8_t>(max_tokens * QuantizedStride(widest));
  activations.quantized_scales_ = carver.Take<float>(max_tokens * (widest / kSmallestGroup));
  activations.quantized_sums_ = carver.Take<int32_t>(max_tokens * (widest / kSmallestGroup));
  if (with_bf16) {
    activations.bf16_values_ = carver.Take<uint16_t>(
        static_cast<int64_t>(Bf16Values(max_tokens, static_cast<uint64_t>(widest))));
  }
  if (with_f16) {
    static_assert(kF16Channels == 32);
    activations.f16_values_ = carver.Take<uint16_t>(max_tokens * widest);
    activations.f16_exponents_ = carver.Take<int32_t>(max_tokens);
  }
  if (device == nullptr) {
    activations.attention_partials_ = carver.Take<float>(kAttentionParts * PartialFloats(model));
  }
  return activations;
}

QuantizedActivations Activations::Quantized(int64_t cols, int64_t group_size) const {
  QuantizedActivations view;
  view.values = quantized_values_;
  view.scales = quantized_scales_;
  view.sums = quantized_sums_;
  view.group_size = group_size;
  view.padded_cols = QuantizedStride(cols);
  const auto padded = static_cast<int64_t>(RoundUp(static_cast<uint64_t>(cols), 32));
  view.groups = (padded + group_size - 1) / group_size;
  return view;
}

Bf16Activations Activations::Bf16(int64_t cols) const {
  return {bf16_values_, static_cast<int64_t>(RoundUp(static_cast<uint64_t>(cols), kBf16Channels))};
}

F16Activations Activations::F16(int64_t cols) const {
  return {f16_values_, f16_exponents_, PaddedF16Cols(cols)};
}

}  // namespace sluice
