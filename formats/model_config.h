// What a model is, in sluice's own terms: the numbers that its checkpoint's configuration gives,
// whatever container and spelling they came from. Stored as JSON inside a .sluice file.
#ifndef SLUICE_FORMATS_MODEL_CONFIG_H_
#define SLUICE_FORMATS_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/activation.h"
#include "formats/status.h"

namespace sluice {

enum class RopeType : uint8_t { kNone, kDefault, kLinear, kLlama3, kYarn, kDynamic, kLongRope };

// Rotary position embedding (Su et al., 2021), with the rotation of the two halves of a head
// (element i with i + dim/2). The frequency scalings are those of transformers'
// modeling_rope_utils: linear (Chen et al., 2023), llama3 (Llama 3.1), yarn (Peng et al., 2023),
// dynamic (NTK-aware), longrope (Ding et al., 2024). Fields that a type does not use keep their
// defaults.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  int64_t dim = 0;      // rotated elements per head, even, <= head_dim
  double factor = 1.0;  // linear, llama3, yarn, dynamic
  // Context length of the pre-training (llama3, yarn, longrope); that up to which nothing changes
  // (dynamic).
  double original_context = 0;
  double low_freq_factor = 1.0;  // llama3
  double high_freq_factor = 4.0;
  double beta_fast = 32.0;  // yarn
  double beta_slow = 1.0;
  double attention_factor = 1.0;  // yarn, longrope: multiplies cos and sin; already resolved
  bool truncate = true;           // yarn: correction range rounded to whole dimensions
  // Divides the frequency of each pair, in place of a formula: GGUF's rope_freqs tensor holds the
  // llama3 scaling in this form. Empty, or dim/2 values.
  std::vector<float> frequency_divisors;
  // longrope: the same for contexts up to original_context, and for longer ones.
  std::vector<float> short_divisors, long_divisors;

  bool operator==(const RopeConfig&) const = default;
};

struct ModelConfig {
  std::string architecture;  // "llama": names the description in loaders/architectures
  std::string name;          // for people; may be empty
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // query heads
  int64_t num_kv_heads = 0;  // divides num_heads: equal is MHA, 1 is MQA, between is GQA
  int64_t head_dim = 0;
  int64_t intermediate_size = 0;
  int64_t context_length = 0;  // tokens that the model was made for
  double norm_eps = 1e-5;
  Activation activation = Activation::kSilu;
  bool attention_bias = false;         // q, k and v
  bool attention_output_bias = false;  // o
  bool mlp_bias = false;
  bool tie_embeddings = false;  // the head is the embedding
  RopeConfig rope;
  // Keys that a token of each layer sees, its own included; 0: all before it. Empty: all, in every
  // layer (sliding windows: Beltagy et al., 2020).
  std::vector<int64_t> layer_windows;
  // 1: the layer rotates its queries and keys; 0: it knows no positions (NoPE: Kazemnejad et al.,
  // 2023). Empty: all rotate.
  std::vector<int64_t> rotating_layers;
  std::optional<RopeConfig> local_rope;  // of the layers with a window, where it differs from rope
  double attention_scale = 0;            // of q k^T; 0: 1 / sqrt(head_dim)
  double attention_softcap = 0;          // c tanh(score / c); 0: none
  double logit_softcap = 0;
  double embedding_scale = 1;
  // ALiBi (Press et al., 2022): AlibiSlopes, the smallest of which is 2^-alibi_bias_max (8 in the
  // paper); 0: none. In bfloat16: Falcon's arithmetic, kernels/ops.h.
  double alibi_bias_max = 0;
  bool alibi_in_bf16 = false;
  // Attention and feed-forward network read the same hidden state (Wang and Komatsuzaki, 2021),
  // each through a norm of its own or both through one.
  bool parallel_blocks = false;
  bool separate_ffn_norm = true;
  // Each block's norm comes after its output was added to the hidden state (Vaswani et al., 2017).
  bool post_norm = false;
  bool final_norm = true;
  // Of the embedding and of the head where it is not hidden_size: matrices without bias stand
  // between (OPT-350m). 0: hidden_size.
  int64_t embedding_size = 0;

  // Bounds that every consumer may rely on: all sizes positive and at most 2^24 (layers 4096,
  // vocabulary and context 2^31 - 1), num_heads * head_dim at most 2^24, heads divisible, rope.dim
  // even and <= head_dim, windows for every layer or none, numbers finite. Errors: kCorrupt, naming
  // the field.
  Status Validate() const;

  bool Rotates(int64_t layer) const {
    return rotating_layers.empty() || rotating_layers[static_cast<size_t>(layer)] != 0;
  }

  std::string ToJson() const;
  // Validates too. The text is untrusted.
  static Result<ModelConfig> FromJson(std::string_view json);

  bool operator==(const ModelConfig&) const = default;
};

// Rotation frequencies, dim/2 of them in float32 as transformers computes them: element pair i
// turns by position * frequency[i] radians. `context_tokens` is the longest context that will be
// used: dynamic and longrope depend on it. (There, transformers follows the length of the sequence,
// and keys that lie in the cache keep the rotation of a shorter one; here all tokens of an engine
// rotate alike, as in llama.cpp and vLLM.)
std::vector<float> RopeFrequencies(const RopeConfig& rope, int64_t context_tokens);

// The slope of each query head, as Press et al. have it: of n heads, a power of two, the i-th has
// 2^(-bias_max i / n), counted from 1; other counts take the slopes of the next smaller power of
// two, and then every second one of the next larger. REQUIRES: num_heads >= 1.
std::vector<float> AlibiSlopes(int64_t num_heads, double bias_max);

}  // namespace sluice

#endif  // SLUICE_FORMATS_MODEL_CONFIG_H_
