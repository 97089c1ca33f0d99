#include "loaders/architectures/decoder.h"

#include <cmath>
#include <string>

#include "formats/half.h"
#include "loaders/architectures/group_builder.h"

namespace sluice {
namespace {

class Decoder {
 public:
  Decoder(const ModelConfig& config, const DecoderTraits& traits)
      : config_(config),
        traits_(traits),
        norm_place_(config.post_norm ? NormPlace::kSum : traits.norm_place),
        embedding_width_(static_cast<uint64_t>(config.embedding_size == 0 ? config.hidden_size
                                                                          : config.embedding_size)),
        hidden_(static_cast<uint64_t>(config.hidden_size)),
        query_width_(static_cast<uint64_t>(config.num_heads * config.head_dim)),
        kv_width_(static_cast<uint64_t>(config.num_kv_heads * config.head_dim)),
        ffn_width_(static_cast<uint64_t>(config.intermediate_size)) {}

  ModelDescription Describe() const;

 private:
  bool NormsInput() const {
    return norm_place_ == NormPlace::kInput || norm_place_ == NormPlace::kBoth;
  }
  bool NormsOutput() const {
    return norm_place_ == NormPlace::kOutput || norm_place_ == NormPlace::kBoth;
  }
  bool Projects() const { return embedding_width_ != hidden_; }
  bool HasFfnNormBeside() const { return config_.parallel_blocks && config_.separate_ffn_norm; }
  int64_t WindowOf(int64_t layer) const {
    return config_.layer_windows.empty() ? 0 : config_.layer_windows[static_cast<size_t>(layer)];
  }

  GroupDescription Tables() const;
  GroupDescription Attention(int64_t layer) const;
  GroupDescription Ffn(int64_t layer) const;
  GroupDescription Head() const;
  // What turns embeddings into the hidden state.
  void Embed(GroupBuilder* group) const;
  // Queries and keys become what they are compared as.
  void Position(int64_t layer, GroupBuilder* group) const;
  void Norm(Buffer in, Buffer out, const std::string& name, GroupBuilder* group) const;
  // The last matrix of a block, whose product goes into the hidden state, and the norm that comes
  // with it: `norm` is the name of that of the block's input or sum.
  void Output(Buffer in, const std::string& name, uint64_t cols, bool bias, const std::string& norm,
              GroupBuilder* group) const;

  const ModelConfig& config_;
  const DecoderTraits& traits_;
  const NormPlace norm_place_;
  uint64_t embedding_width_;
  uint64_t hidden_, query_width_, kv_width_, ffn_width_;
};

void Decoder::Norm(Buffer in, Buffer out, const std::string& name, GroupBuilder* group) const {
  if (traits_.norm == NormKind::kRms) {
    group->RmsNorm(in, out, name, hidden_, config_.norm_eps);
  } else {
    group->LayerNorm(in, out, name, hidden_, config_.norm_eps, traits_.norm_biases);
  }
}

void Decoder::Output(Buffer in, const std::string& name, uint64_t cols, bool bias,
                     const std::string& norm, GroupBuilder* group) const {
  if (!NormsOutput()) {
    group->AddLinear(in, Buffer::kHidden, name, hidden_, cols, bias);
    if (norm_place_ == NormPlace::kSum)
      Norm(Buffer::kHidden, Buffer::kHidden, norm + "_norm", group);
    return;
  }
  // The block's input lies in kNormed, or nowhere, and is not needed any more.
  group->Linear(in, Buffer::kNormed, name, hidden_, cols, bias);
  group->AddRmsNorm(Buffer::kNormed, Buffer::kHidden, norm + "_post_norm", hidden_,
                    config_.norm_eps);
}

void Decoder::Position(int64_t layer, GroupBuilder* group) const {
  const auto head_dim = static_cast<uint64_t>(config_.head_dim);
  if (traits_.qk_norm == QkNorm::kHead) {
    group->HeadRmsNorm(Buffer::kQuery, "attn.q_norm", head_dim, config_.num_heads,
                       config_.norm_eps);
    group->HeadRmsNorm(Buffer::kKey, "attn.k_norm", head_dim, config_.num_kv_heads,
                       config_.norm_eps);
  } else if (traits_.qk_norm == QkNorm::kRow) {
    group->RmsNorm(Buffer::kQuery, Buffer::kQuery, "attn.q_norm", query_width_, config_.norm_eps);
    group->RmsNorm(Buffer::kKey, Buffer::kKey, "attn.k_norm", kv_width_, config_.norm_eps);
  }
  if (!config_.Rotates(layer)) return;
  const size_t rope = config_.local_rope && WindowOf(layer) > 0 ? 1 : 0;
  if ((rope == 1 ? *config_.local_rope : config_.rope).type == RopeType::kNone) return;
  group->Add(RopeStep{Buffer::kQuery, config_.num_heads, config_.head_dim, rope});
  group->Add(RopeStep{Buffer::kKey, config_.num_kv_heads, config_.head_dim, rope});
}

void Decoder::Embed(GroupBuilder* group) const {
  if (Projects()) {
    if (traits_.learned_positions) {
      group->AddLinear(Buffer::kEmbedded, Buffer::kHidden, "project_in", hidden_, embedding_width_,
                       false);
    } else {
      group->Linear(Buffer::kEmbedded, Buffer::kHidden, "project_in", hidden_, embedding_width_,
                    false);
    }
  }
  if (traits_.embedding_norm) Norm(Buffer::kHidden, Buffer::kHidden, "embed_norm", group);
}

GroupDescription Decoder::Attention(int64_t layer) const {
  const double scale = config_.attention_scale != 0
                           ? config_.attention_scale
                           : 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  const bool bias = config_.attention_bias;
  GroupBuilder group(GroupKind::kAttention, layer);
  if (layer == 0) Embed(&group);
  const Buffer input = NormsInput() ? Buffer::kNormed : Buffer::kHidden;
  if (NormsInput()) Norm(Buffer::kHidden, Buffer::kNormed, "attn_norm", &group);
  if (HasFfnNormBeside()) Norm(Buffer::kHidden, Buffer::kFfnNormed, "ffn_norm", &group);
  group.Linear(input, Buffer::kQuery, "attn.q", query_width_, hidden_, bias);
  group.Linear(input, Buffer::kKey, "attn.k", kv_width_, hidden_, bias);
  group.Linear(input, Buffer::kValue, "attn.v", kv_width_, hidden_, bias);
  Position(layer, &group);
  group.Add(AttentionStep{Buffer::kQuery, Buffer::kKey, Buffer::kValue, Buffer::kAttended, layer,
                          config_.num_heads, config_.num_kv_heads, config_.head_dim,
                          static_cast<float>(scale), WindowOf(layer),
                          static_cast<float>(config_.attention_softcap)});
  Output(Buffer::kAttended, "attn.o", query_width_, config_.attention_output_bias, "attn", &group);
  return group.Take();
}

GroupDescription Decoder::Ffn(int64_t layer) const {
  const bool bias = config_.mlp_bias;
  GroupBuilder group(GroupKind::kFfn, layer);
  Buffer input = NormsInput() ? Buffer::kNormed : Buffer::kHidden;
  if (config_.parallel_blocks) {
    input = HasFfnNormBeside() ? Buffer::kFfnNormed : Buffer::kNormed;
  } else if (NormsInput()) {
    Norm(Buffer::kHidden, Buffer::kNormed, "ffn_norm", &group);
  }
  if (traits_.gated_ffn) {
    group.Linear(input, Buffer::kGate, "ffn.gate", ffn_width_, hidden_, bias);
    group.Linear(input, Buffer::kUp, "ffn.up", ffn_width_, hidden_, bias);
    group.Add(ActivationStep{Buffer::kGate, Buffer::kUp, Buffer::kGate, config_.activation});
  } else {
    group.Linear(input, Buffer::kGate, "ffn.up", ffn_width_, hidden_, bias);
    group.Add(ActivationStep{Buffer::kGate, std::nullopt, Buffer::kGate, config_.activation});
  }
  Output(Buffer::kGate, "ffn.down", ffn_width_, bias, "ffn", &group);
  return group.Take();
}

// Rows of these are gathered; no steps.
GroupDescription Decoder::Tables() const {
  GroupDescription group;
  group.kind = GroupKind::kEmbedding;
  if (!config_.tie_embeddings) {
    group.tensors.push_back({"embed.weight", static_cast<uint64_t>(config_.vocab_size),
                             embedding_width_, TensorKind::kEmbedding});
  }
  if (traits_.learned_positions) {
    group.tensors.push_back({"positions.weight", static_cast<uint64_t>(config_.context_length),
                             hidden_, TensorKind::kEmbedding});
  }
  return group;
}

// The head's product is the logits, which runtime computes for the rows that are wanted, so the
// group's steps are what comes before it.
GroupDescription Decoder::Head() const {
  GroupBuilder builder(GroupKind::kHead, -1);
  if (config_.final_norm) Norm(Buffer::kHidden, Buffer::kNormed, "norm", &builder);
  if (Projects()) {
    builder.Linear(config_.final_norm ? Buffer::kNormed : Buffer::kHidden, Buffer::kEmbedded,
                   "project_out", embedding_width_, hidden_, false);
  }
  GroupDescription group = builder.Take();
  group.tensors.push_back({config_.tie_embeddings ? "embed.weight" : "head.weight",
                           static_cast<uint64_t>(config_.vocab_size), embedding_width_,
                           TensorKind::kMatrix});
  return group;
}

ModelDescription Decoder::Describe() const {
  ModelDescription model;
  model.embedding_tensor = "embed.weight";
  model.head_tensor = config_.tie_embeddings ? model.embedding_tensor : "head.weight";
  if (traits_.learned_positions) model.position_tensor = "positions.weight";
  model.embedding_scale = static_cast<float>(config_.embedding_scale);
  if (Projects()) model.embedding_output = Buffer::kEmbedded;
  model.head_input = Projects()           ? Buffer::kEmbedded
                     : config_.final_norm ? Buffer::kNormed
                                          : Buffer::kHidden;
  if (config_.alibi_bias_max != 0) {
    model.alibi_slopes = AlibiSlopes(config_.num_heads, config_.alibi_bias_max);
    model.alibi_in_bf16 = config_.alibi_in_bf16;
    for (float& slope : model.alibi_slopes) {
      if (model.alibi_in_bf16) slope = Bf16ToFloat(FloatToBf16(slope));
    }
  }
  model.logit_softcap = static_cast<float>(config_.logit_softcap);
  model.ropes.push_back(config_.rope);
  if (config_.local_rope) model.ropes.push_back(*config_.local_rope);
  if (GroupDescription tables = Tables(); !tables.tensors.empty()) {
    model.groups.push_back(std::move(tables));
  }
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    model.groups.push_back(Attention(layer));
    model.groups.push_back(Ffn(layer));
    model.layer_states.push_back({config_.num_kv_heads, config_.head_dim});
  }
  model.groups.push_back(Head());

  auto width = [&model](Buffer buffer) -> int64_t& {
    return model.buffer_widths[static_cast<size_t>(buffer)];
  };
  width(Buffer::kHidden) = config_.hidden_size;
  width(Buffer::kNormed) = config_.hidden_size;
  width(Buffer::kQuery) = config_.num_heads * config_.head_dim;
  width(Buffer::kKey) = config_.num_kv_heads * config_.head_dim;
  width(Buffer::kValue) = config_.num_kv_heads * config_.head_dim;
  width(Buffer::kAttended) = config_.num_heads * config_.head_dim;
  width(Buffer::kGate) = config_.intermediate_size;
  width(Buffer::kUp) = traits_.gated_ffn ? config_.intermediate_size : 0;
  width(Buffer::kFfnNormed) = HasFfnNormBeside() ? config_.hidden_size : 0;
  width(Buffer::kEmbedded) = Projects() ? config_.embedding_size : 0;
  return model;
}

}  // namespace

ModelDescription DescribeDecoder(const ModelConfig& config, const DecoderTraits& traits) {
  return Decoder(config, traits).Describe();
}

}  // namespace sluice
