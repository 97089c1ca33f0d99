// An architecture as data: which tensors a model has, in the order of use, and which operations a
// pass runs on them. The forward pass (runtime/forward.h) executes the description; it knows no
// architecture. To add one: a file in loaders/architectures, a line in its registry, the names of
// its tensors in checkpoints, tests.
#ifndef SLUICE_LOADERS_ARCHITECTURE_H_
#define SLUICE_LOADERS_ARCHITECTURE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/model_config.h"
#include "formats/status.h"
#include "formats/weight_group.h"

namespace sluice {

// Activations of a pass, each float32 [tokens, width].
enum class Buffer : uint8_t { kHidden, kNormed, kQuery, kKey, kValue, kAttended, kGate, kUp };
inline constexpr size_t kBufferCount = 8;

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

// out = in / sqrt(mean(in^2) + eps) * weight  (Zhang and Sennrich, 2019).
struct RmsNormStep {
  Buffer in, out;
  TensorIndex weight;
  float eps;
};

// out = weight * in + bias; or out += that, for a residual.
struct LinearStep {
  Buffer in, out;
  TensorIndex weight;
  TensorIndex bias = kNoTensor;
  bool add_to_out = false;
};

// Rotates `heads` heads in place by the token's position, with the model's RopeConfig.
struct RopeStep {
  Buffer data;
  int64_t heads;
  int64_t head_dim;
};

// Stores kKey and kValue in the layer's cache, then out = softmax(q k^T * scale) v over the keys
// that the token may see.
struct AttentionStep {
  Buffer query, key, value, out;
  int64_t layer;
  int64_t num_heads, num_kv_heads, head_dim;
  float scale;
};

// out = activation(gate) * up  (Shazeer, 2020).
struct GatedActivationStep {
  Buffer gate, up, out;
  Activation activation;
};

using Step = std::variant<RmsNormStep, LinearStep, RopeStep, AttentionStep, GatedActivationStep>;

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
  // In the order of use. An untied embedding is the first group; the last is the head.
  std::vector<GroupDescription> groups;
  std::vector<LayerStateDescription> layer_states;
  std::array<int64_t, kBufferCount> buffer_widths = {};
  std::string embedding_tensor;
  std::string head_tensor;  // the same as embedding_tensor when tied
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
