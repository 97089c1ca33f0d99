#include "loaders/architectures/llama.h"

#include <cmath>
#include <string>

#include "loaders/architectures/group_builder.h"

namespace sluice {
namespace {

GroupDescription AttentionGroup(const ModelConfig& config, int64_t layer) {
  const auto hidden = static_cast<uint64_t>(config.hidden_size);
  const auto query_width = static_cast<uint64_t>(config.num_heads * config.head_dim);
  const auto kv_width = static_cast<uint64_t>(config.num_kv_heads * config.head_dim);
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.head_dim)));
  const bool bias = config.attention_bias;

  GroupBuilder group(GroupKind::kAttention, layer);
  group.RmsNorm(Buffer::kHidden, Buffer::kNormed, "attn_norm", hidden, config.norm_eps);
  group.Linear(Buffer::kNormed, Buffer::kQuery, "attn.q", query_width, hidden, bias);
  group.Linear(Buffer::kNormed, Buffer::kKey, "attn.k", kv_width, hidden, bias);
  group.Linear(Buffer::kNormed, Buffer::kValue, "attn.v", kv_width, hidden, bias);
  group.Add(RopeStep{Buffer::kQuery, config.num_heads, config.head_dim});
  group.Add(RopeStep{Buffer::kKey, config.num_kv_heads, config.head_dim});
  group.Add(AttentionStep{Buffer::kQuery, Buffer::kKey, Buffer::kValue, Buffer::kAttended, layer,
                          config.num_heads, config.num_kv_heads, config.head_dim, scale});
  group.AddLinear(Buffer::kAttended, Buffer::kHidden, "attn.o", hidden, query_width,
                  config.attention_output_bias);
  return group.Take();
}

GroupDescription FfnGroup(const ModelConfig& config, int64_t layer) {
  const auto hidden = static_cast<uint64_t>(config.hidden_size);
  const auto width = static_cast<uint64_t>(config.intermediate_size);

  GroupBuilder group(GroupKind::kFfn, layer);
  group.RmsNorm(Buffer::kHidden, Buffer::kNormed, "ffn_norm", hidden, config.norm_eps);
  group.Linear(Buffer::kNormed, Buffer::kGate, "ffn.gate", width, hidden, config.mlp_bias);
  group.Linear(Buffer::kNormed, Buffer::kUp, "ffn.up", width, hidden, config.mlp_bias);
  group.Add(GatedActivationStep{Buffer::kGate, Buffer::kUp, Buffer::kGate, config.activation});
  group.AddLinear(Buffer::kGate, Buffer::kHidden, "ffn.down", hidden, width, config.mlp_bias);
  return group.Take();
}

}  // namespace

ModelDescription DescribeLlama(const ModelConfig& config) {
  ModelDescription model;
  model.embedding_tensor = "embed.weight";
  model.head_tensor = config.tie_embeddings ? model.embedding_tensor : "head.weight";
  if (!config.tie_embeddings) model.groups.push_back(EmbeddingGroup(config));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    model.groups.push_back(AttentionGroup(config, layer));
    model.groups.push_back(FfnGroup(config, layer));
    model.layer_states.push_back({config.num_kv_heads, config.head_dim});
  }
  model.groups.push_back(HeadGroup(config, model.head_tensor));

  auto width = [&model](Buffer buffer) -> int64_t& {
    return model.buffer_widths[static_cast<size_t>(buffer)];
  };
  width(Buffer::kHidden) = config.hidden_size;
  width(Buffer::kNormed) = config.hidden_size;
  width(Buffer::kQuery) = config.num_heads * config.head_dim;
  width(Buffer::kKey) = config.num_kv_heads * config.head_dim;
  width(Buffer::kValue) = config.num_kv_heads * config.head_dim;
  width(Buffer::kAttended) = config.num_heads * config.head_dim;
  width(Buffer::kGate) = config.intermediate_size;
  width(Buffer::kUp) = config.intermediate_size;
  return model;
}

}  // namespace sluice
