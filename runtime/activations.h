// The scratch memory of a forward pass, taken once.
#ifndef SLUICE_RUNTIME_ACTIVATIONS_H_
#define SLUICE_RUNTIME_ACTIVATIONS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "formats/status.h"
#include "kernels/ops.h"
#include "loaders/architecture.h"
#include "offload/arena.h"

namespace sluice {

// Rows of the head's product that are held at a time.
inline constexpr int64_t kLogitRows = 16;

// Bytes from one token's quantized channels to the next one's, a multiple of 32.
int64_t QuantizedStride(int64_t cols);

class Activations {
 public:
  // Room for max_tokens tokens in every buffer, in the memory of `device`; null: the host's.
  // `with_bf16`, `with_f16`: there is one for a copy in bf16, or f16, too. Errors: as
  // Arena::Allocate.
  static Result<Activations> Create(const ModelDescription& model, int64_t max_tokens,
                                    Device* device = nullptr, bool with_bf16 = false,
                                    bool with_f16 = false);
  static uint64_t SizeBytes(const ModelDescription& model, int64_t max_tokens,
                            bool on_device = false, bool with_bf16 = false, bool with_f16 = false);

  int64_t max_tokens() const { return max_tokens_; }
  // Room for the partial results of attention of so many pairs of a split and a token; null on a
  // device, which has its own.
  static constexpr int64_t kAttentionParts = 256;
  float* attention_partials() const { return attention_partials_; }
  uint64_t size_bytes() const { return arena_.size_bytes(); }

  // [max_tokens, width(buffer)], rows width(buffer) apart.
  float* data(Buffer buffer) const { return buffers_[static_cast<size_t>(buffer)]; }
  int64_t width(Buffer buffer) const { return widths_[static_cast<size_t>(buffer)]; }

  // The one quantized copy of a buffer: views for `group_size`, over the same memory each time.
  QuantizedActivations Quantized(int64_t cols, int64_t group_size) const;
  // What that memory holds now; a step that writes a buffer forgets it.
  struct QuantizedContent {
    Buffer buffer;
    int64_t group_size;
    bool operator==(const QuantizedContent&) const = default;
  };
  std::optional<QuantizedContent> quantized_content;

  // The one copy of a buffer in bf16, and the buffer that it is of.
  Bf16Activations Bf16(int64_t cols) const;
  std::optional<Buffer> bf16_content;
  // The same for f16.
  F16Activations F16(int64_t cols) const;
  std::optional<Buffer> f16_content;

  // Vectors of the model (norm weight, bias) in float32, when they are stored in 16 bits.
  static constexpr size_t kVectorScratches = 2;
  float* vector_scratch(size_t index) const { return vector_scratch_[index]; }

 private:
  Arena arena_;
  int64_t max_tokens_ = 0;
  std::array<int64_t, kBufferCount> widths_ = {};
  std::array<float*, kBufferCount> buffers_ = {};
  std::array<float*, kVectorScratches> vector_scratch_ = {};
  int8_t* quantized_values_ = nullptr;
  float* quantized_scales_ = nullptr;
  int32_t* quantized_sums_ = nullptr;
  uint16_t* bf16_values_ = nullptr;
  uint16_t* f16_values_ = nullptr;
  int32_t* f16_exponents_ = nullptr;
  float* attention_partials_ = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_ACTIVATIONS_H_
