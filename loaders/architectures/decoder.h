// The transformer decoders that differ from each other in details: one description, with traits.
#ifndef SLUICE_LOADERS_ARCHITECTURES_DECODER_H_
#define SLUICE_LOADERS_ARCHITECTURES_DECODER_H_

#include <cstdint>

#include "loaders/architecture.h"

namespace sluice {

enum class NormKind : uint8_t {
  kRms,    // RMSNorm (Zhang and Sennrich, 2019)
  kLayer,  // LayerNorm with bias (Ba et al., 2016)
};

// Where a block (attention or feed-forward network) is normalized: its input, its output before
// that is added to the hidden state, or both; or the sum (ModelConfig::post_norm).
enum class NormPlace : uint8_t { kInput, kOutput, kBoth, kSum };

// RMSNorm of queries and keys before their rotation.
enum class QkNorm : uint8_t {
  kNone,
  kHead,  // each head by itself, one weight for all (Qwen3, Gemma 3)
  kRow,   // all heads together (OLMo 2)
};

// What an architecture fixes; what varies from model to model is in ModelConfig.
struct DecoderTraits {
  NormKind norm = NormKind::kRms;
  NormPlace norm_place = NormPlace::kInput;
  QkNorm qk_norm = QkNorm::kNone;
  bool gated_ffn = true;           // down(activation(gate x) * up x), or down(activation(up x))
  bool learned_positions = false;  // a table of context_length rows, added to the embedding
  bool embedding_norm = false;     // of the embedding, before the first layer
  bool norm_biases = true;         // of LayerNorms
};

// REQUIRES: config.Validate().ok(); norm_place kOutput and kBoth only with kRms.
ModelDescription DescribeDecoder(const ModelConfig& config, const DecoderTraits& traits);

}  // namespace sluice

#endif  // SLUICE_LOADERS_ARCHITECTURES_DECODER_H_
