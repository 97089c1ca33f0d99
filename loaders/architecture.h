// An architecture as data: which tensors a model has, in the order of use, and which operations a
// pass runs on them. The forward pass (runtime/forward.h) executes the description; it knows no
// architecture. To add one: a line in the registry of architecture.cc, or a file in
// loaders/architectures where the pieces there do not suffice; the names of its tensors in
// checkpoints (tensor_names.cc), its configuration (hf_architectures.cc, gguf_config.cc), tests.
#ifndef SLUICE_LOADERS_ARCHITECTURE_H_
#define SLUICE_LOADERS_ARCHITECTURE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/model_config.h"
#include "formats/status.h"
#include "formats/weight_group.h"

namespace sluice {

// Activations of a pass, each float32 [tokens, width].
enum class Buffer : uint8_t {
  kHidden,
  kNormed,
  kQuery,
  kKey,
  kValue,
  kAttended,
  kGate,
  kUp,
  kFfnNormed,  // input of a feed-forward network that runs beside the attention
  kEmbedded,   // rows of an embedding, or inputs of a head, of another width than kHidden
};
inline constexpr size_t kBufferCount = 10;

enum class TensorKind : uint8_t {
  kEmbedding,  // [vocabulary, hidden], gathered by row
  kMatrix,     // [out, in]
  kVector,     // [1, n]: norm weight or bias; stays float
};

struct TensorRequirement {
  std::string name;  // canonical: "layers.3.attn.q.weight"
  uint64_t rows = 0;
  uint64_t cols = 0;
  TensorKind kind = TensorKind::kMatrix;
};

// Operations. A tensor is named by its index in the group; kNoTensor: there is none.
using TensorIndex = uint16_t;
inline constexpr TensorIndex kNoTensor = 0xffff;

// out = in / sqrt(mean(in^2) + eps) * weight  (Zhang and Sennrich, 2019), for each of `heads` equal
// parts of the row by itself; or out += that.
struct RmsNormStep {
  Buffer in, out;
  TensorIndex weight;
  float eps;
  int64_t heads = 1;
  bool add_to_out = false;
};

// out = (in - mean(in)) / sqrt(variance(in) + eps) * weight + bias  (Ba et al., 2016).
struct LayerNormStep {
  Buffer in, out;
  TensorIndex weight;
  TensorIndex bias;  // or kNoTensor
  float eps;
};

// out = weight * in + bias; or out += that, for a residual.
struct LinearStep {
  Buffer in, out;
  TensorIndex weight;
  TensorIndex bias = kNoTensor;
  bool add_to_out = false;
};

// Rotates `heads` heads in place by the token's position.
struct RopeStep {
  Buffer data;
  int64_t heads;
  int64_t head_dim;
  size_t rope;  // index in ModelDescription::ropes
};

// Stores kKey and kValue in the layer's cache, then out = softmax(q k^T * scale) v over the keys
// that the token may see: the last `window`, itself included, or all if that is 0. A soft cap c
// other than 0 turns each score s into c tanh(s / c). The description's slopes, if any, bias them.
struct AttentionStep {
  Buffer query, key, value, out;
  int64_t layer;
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;
  int64_t window;
  float softcap;
};

// out = activation(gate) * up  (Shazeer, 2020); without up: activation(gate).
struct ActivationStep {
  Buffer gate;
  std::optional<Buffer> up;
  Buffer out;
  Activation activation;
};

using Step =
    std::variant<RmsNormStep, LayerNormStep, LinearStep, RopeStep, AttentionStep, ActivationStep>;

struct GroupDescription {
  GroupKind kind = GroupKind::kAttention;
  int64_t layer = -1;  // -1: no layer's
  std::vector<TensorRequirement> tensors;
  std::vector<Step> steps;
};

// What a layer keeps for each token of a sequence.
struct LayerStateDescription {
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
};

struct ModelDescription {
  // In the order of use. Tables that are gathered (an untied embedding, learned positions) are the
  // first group; the last is the head.
  std::vector<GroupDescription> groups;
  std::vector<LayerStateDescription> layer_states;
  std::array<int64_t, kBufferCount> buffer_widths = {};
  std::string embedding_tensor;
  std::string head_tensor;      // the same as embedding_tensor when tied
  std::string position_tensor;  // learned positions, a row for each; empty: there are none
  float embedding_scale = 1;    // of the rows of embedding_tensor
  // Where those rows go. If that is not kHidden, positions lie there alone before the first step,
  // or nothing does.
  Buffer embedding_output = Buffer::kHidden;
  Buffer head_input = Buffer::kNormed;  // what the head's matrix reads
  float logit_softcap = 0;              // 0: none
  std::vector<RopeConfig> ropes;
  std::vector<float> alibi_slopes;  // of each query head (kernels/ops.h); empty: none
  bool alibi_in_bf16 = false;
};

// Errors: kUnsupported names the architecture and lists those that are known.
// REQUIRES: config.Validate().ok().
Result<ModelDescription> DescribeModel(const ModelConfig& config);

// All tensors of the description, in the order of use, each once.
std::vector<TensorRequirement> RequiredTensors(const ModelDescription& description);

// Names of the architectures that DescribeModel knows.
std::vector<std::string_view> SupportedArchitectures();

}  // namespace sluice

#endif  // SLUICE_LOADERS_ARCHITECTURE_H_
