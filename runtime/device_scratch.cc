#include "runtime/device_scratch.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "kernels/cuda/f16_products.h"
#include "kernels/cuda/support.h"
#include "kernels/ops.h"
#include "runtime/activations.h"
#include "runtime/carver.h"

namespace sluice {
namespace {

struct Others {
  std::vector<float*> frequencies;
  float* alibi_slopes;
  float* logits;
  float* best;
  float* attention_scratch;
  uint16_t* panel;
  std::byte* workspace;
};

// Memory that begins on a multiple of kCublasLtWorkspaceAlignment.
std::byte* CarveWorkspace(uint64_t size_bytes, Carver* carver) {
  if (size_bytes == 0) return nullptr;
  auto* const range =
      carver->Take<std::byte>(static_cast<int64_t>(size_bytes + kCublasLtWorkspaceAlignment));
  if (range == nullptr) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(range);
  return range + (RoundUp(address, kCublasLtWorkspaceAlignment) - address);
}

// Elements of 4 bytes: of each row a sum, logits and ids.
int64_t BestSize(const DeviceScratchSizes& sizes) {
  static_assert(sizeof(float) == sizeof(int32_t));
  return sizes.logit_rows * (1 + 2 * kMostTopK);
}

Others CarveOthers(const DeviceScratchSizes& sizes, Carver* carver) {
  Others others = {};
  for (int64_t size : sizes.rope_frequencies)
    others.frequencies.push_back(carver->Take<float>(size));
  others.alibi_slopes = carver->Take<float>(sizes.alibi_slopes);
  others.logits = carver->Take<float>(sizes.logit_rows * sizes.vocab);
  others.best = carver->Take<float>(BestSize(sizes));
  others.attention_scratch = carver->Take<float>(sizes.attention_scratch);
  others.panel = carver->Take<uint16_t>(sizes.panel_values);
  others.workspace = CarveWorkspace(sizes.workspace_bytes, carver);
  return others;
}

// Of the matrices that prompts are multiplied with: all but the head's.
int64_t LargestPanel(const ModelDescription& model) {
  int64_t values = 0;
  for (size_t g = 0; g + 1 < model.groups.size(); ++g) {
    const GroupDescription& group = model.groups[g];
    for (const Step& step : group.steps) {
      const auto* linear = std::get_if<LinearStep>(&step);
      if (linear == nullptr) continue;
      const TensorRequirement& matrix = group.tensors[linear->weight];
      values = std::max(values, PanelValues(static_cast<int64_t>(matrix.rows),
                                            static_cast<int64_t>(matrix.cols)));
    }
  }
  return values;
}

}  // namespace

DeviceScratchSizes DeviceScratchSizesOf(const ModelDescription& model, int64_t vocab,
                                        int64_t max_tokens, int64_t context_tokens,
                                        int64_t table_blocks, bool f16_prompts) {
  DeviceScratchSizes sizes;
  sizes.max_tokens = max_tokens;
  sizes.table_blocks = table_blocks;
  for (Buffer buffer : {Buffer::kHidden, Buffer::kEmbedded}) {
    sizes.row_width = std::max(sizes.row_width, model.buffer_widths[static_cast<size_t>(buffer)]);
  }
  sizes.vocab = vocab;
  sizes.logit_rows = std::min(kLogitRows, max_tokens);
  for (const RopeConfig& rope : model.ropes) sizes.rope_frequencies.push_back(rope.dim / 2);
  sizes.alibi_slopes = static_cast<int64_t>(model.alibi_slopes.size());
  for (const GroupDescription& group : model.groups) {
    for (const Step& step : group.steps) {
      const auto* attention = std::get_if<AttentionStep>(&step);
      if (attention == nullptr) continue;
      sizes.attention_scratch = std::max(sizes.attention_scratch,
                                         GpuAttentionScratch(max_tokens, attention->num_heads,
                                                             attention->head_dim, context_tokens));
    }
  }
  if (f16_prompts) {
    sizes.workspace_bytes = kCublasLtWorkspaceBytes;
    sizes.panel_values = LargestPanel(model);
  }
  return sizes;
}

DeviceScratch::Arrays DeviceScratch::CarveArrays(const DeviceScratchSizes& sizes, Carver* carver) {
  // In this order the ids, of which most batches use few, are the end of what is copied, and the
  // trees, which most batches have none of, its beginning.
  Arrays arrays = {};
  arrays.tree_begins = carver->Take<int64_t>(sizes.max_tokens);
  arrays.ancestors = carver->Take<uint64_t>(sizes.max_tokens);
  arrays.positions = carver->Take<int32_t>(sizes.max_tokens);
  arrays.slots = carver->Take<int64_t>(sizes.max_tokens);
  arrays.lengths = carver->Take<int64_t>(sizes.max_tokens);
  arrays.tables = carver->Take<const uint32_t*>(sizes.max_tokens);
  arrays.table_blocks = carver->Take<uint32_t>(sizes.table_blocks);
  return arrays;
}

uint64_t DeviceScratch::DeviceBytes(const DeviceScratchSizes& sizes) {
  Carver carver(nullptr);
  CarveArrays(sizes, &carver);
  CarveOthers(sizes, &carver);
  return carver.offset();
}

uint64_t DeviceScratch::StagingBytes(const DeviceScratchSizes& sizes) {
  Carver carver(nullptr);
  CarveArrays(sizes, &carver);
  for (size_t i = 0; i < kRowStagings; ++i) carver.Take<float>(sizes.max_tokens * sizes.row_width);
  carver.Take<float>(BestSize(sizes));
  return carver.offset();
}

Result<DeviceScratch> DeviceScratch::Create(Device* device, DeviceStream* stream,
                                            const DeviceScratchSizes& sizes,
                                            std::span<const std::vector<float>> frequencies,
                                            std::span<const float> alibi_slopes) {
  DeviceScratch scratch;
  scratch.sizes_ = sizes;
  scratch.stream_ = stream;
  Result<Arena> memory = Arena::Allocate(device, DeviceBytes(sizes));
  if (!memory.ok()) return memory.status().WithContext("scratch memory of the GPU");
  scratch.memory_ = std::move(*memory);
  Result<Arena> staging = Arena::AllocateStaging(device, StagingBytes(sizes));
  if (!staging.ok()) return staging.status().WithContext("staging memory of the GPU");
  scratch.staging_ = std::move(*staging);
  Result<DeviceEvent> sent = device->CreateEvent();
  if (!sent.ok()) return sent.status();
  scratch.sent_ = std::move(*sent);

  Carver on_device(scratch.memory_.data());
  scratch.device_ = CarveArrays(sizes, &on_device);
  const Others others = CarveOthers(sizes, &on_device);
  scratch.frequencies_ = others.frequencies;
  scratch.alibi_slopes_ = others.alibi_slopes;
  scratch.logits_ = others.logits;
  scratch.best_ = others.best;
  scratch.attention_scratch_ = others.attention_scratch;
  scratch.panel_ = others.panel;
  scratch.workspace_ = others.workspace;
  Carver on_host(scratch.staging_.data());
  scratch.host_ = CarveArrays(sizes, &on_host);
  for (float*& rows : scratch.row_staging_) {
    rows = on_host.Take<float>(sizes.max_tokens * sizes.row_width);
  }
  scratch.host_best_ = on_host.Take<float>(BestSize(sizes));
  const auto send = [stream](float* to, std::span<const float> from) {
    return stream->Copy(to, from.data(), from.size_bytes(), CopyDirection::kHostToDevice);
  };
  for (size_t i = 0; i < frequencies.size(); ++i) {
    if (Status s = send(scratch.frequencies_[i], frequencies[i]); !s.ok()) return s;
  }
  if (!alibi_slopes.empty()) {
    if (Status s = send(scratch.alibi_slopes_, alibi_slopes); !s.ok()) return s;
  }
  if (sizes.attention_scratch > 0) {
    const int64_t counters = std::min(sizes.attention_scratch, kGpuAttentionCounters);
    if (Status s = stream->Fill(scratch.attention_scratch_, 0,
                                static_cast<uint64_t>(counters) * sizeof(float));
        !s.ok()) {
      return s;
    }
  }
  if (Status s = stream->Synchronize(); !s.ok()) return s;
  return scratch;
}

Status DeviceScratch::Begin() { return sent_.Synchronize(); }

Status DeviceScratch::SendRows(size_t index, int64_t floats, float* to) {
  return stream_->Copy(to, row_staging_[index], static_cast<uint64_t>(floats) * sizeof(float),
                       CopyDirection::kHostToDevice);
}

Result<BatchArrays> DeviceScratch::SendArrays(const Batch& batch) {
  const auto tokens = static_cast<size_t>(batch.tokens());
  std::copy(batch.positions.begin(), batch.positions.end(), host_.positions);
  std::copy(batch.slots.begin(), batch.slots.end(), host_.slots);
  std::copy(batch.lengths.begin(), batch.lengths.end(), host_.lengths);
  int64_t used = 0;
  for (size_t t = 0; t < tokens;) {
    // Tokens of one sequence follow each other: one copy of its table serves them all.
    const uint32_t* table = batch.block_tables[t];
    int64_t length = 0;
    const size_t first = t;
    for (; t < tokens && batch.block_tables[t] == table; ++t) {
      length = std::max(length, batch.lengths[t]);
    }
    const int64_t blocks = (length + kKvBlockTokens - 1) / kKvBlockTokens;
    if (blocks > sizes_.table_blocks - used) {
      return Status(ErrorCode::kInternal, "the block tables of a batch are longer than the cache");
    }
    std::copy_n(table, blocks, host_.table_blocks + used);
    for (size_t i = first; i < t; ++i) host_.tables[i] = device_.table_blocks + used;
    used += blocks;
  }
  BatchArrays arrays = {.positions = device_.positions,
                        .slots = device_.slots,
                        .lengths = device_.lengths,
                        .block_tables = device_.tables};
  const auto* begin = reinterpret_cast<const std::byte*>(host_.positions);
  auto* to = reinterpret_cast<std::byte*>(device_.positions);
  if (batch.has_trees()) {
    std::copy(batch.tree_begins.begin(), batch.tree_begins.end(), host_.tree_begins);
    std::copy(batch.ancestors.begin(), batch.ancestors.end(), host_.ancestors);
    arrays.tree_begins = device_.tree_begins;
    arrays.ancestors = device_.ancestors;
    begin = reinterpret_cast<const std::byte*>(host_.tree_begins);
    to = reinterpret_cast<std::byte*>(device_.tree_begins);
  }
  const auto* end = reinterpret_cast<const std::byte*>(host_.table_blocks + used);
  if (Status s = stream_->Copy(to, begin, static_cast<uint64_t>(end - begin),
                               CopyDirection::kHostToDevice);
      !s.ok()) {
    return s;
  }
  return arrays;
}

Result<BestRows> DeviceScratch::Best(const OpTable& ops, int64_t rows, int64_t each) {
  const auto places = [&](float* begin) {
    return std::pair(begin + rows, reinterpret_cast<int32_t*>(begin + rows + rows * each));
  };
  const auto [values, indices] = places(best_);
  ops.top_k({.x = logits_,
             .x_stride = sizes_.vocab,
             .rows = rows,
             .width = sizes_.vocab,
             .count = each,
             .values = values,
             .indices = indices,
             .weight_sums = best_},
            stream_->handle());
  if (Status s = stream_->Copy(host_best_, best_,
                               static_cast<uint64_t>(rows * (1 + 2 * each)) * sizeof(float),
                               CopyDirection::kDeviceToHost);
      !s.ok()) {
    return s;
  }
  if (Status s = stream_->Synchronize(); !s.ok()) return s;
  const auto [logits, ids] = places(host_best_);
  return BestRows{each, host_best_, logits, ids};
}

Status DeviceScratch::End() { return stream_->Record(sent_); }

}  // namespace sluice
