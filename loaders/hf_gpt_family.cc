// What comes from GPT-2: LayerNorm, mostly without a gate.
#include <fmt/format.h>

#include <cmath>
#include <string>

#include "loaders/hf_readers.h"
#include "loaders/hf_rope.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

}  // namespace

Status ReadStarcoder2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadSizes({.kv_heads = 2}, &fields, model);
  model->context_length = fields.Int("max_position_embeddings", 4096);
  model->norm_eps = fields.Number("norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = fields.Bool("use_bias", true);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = model->attention_bias;
  ReadActivation(&fields, "hidden_act", "gelu_pytorch_tanh", model);
  if (fields.Find("sliding_window") != nullptr) {
    ReadWindows(&fields, fields.Int("sliding_window", 0), kEveryLayer, model);
  }
  if (!fields.status().ok()) return fields.status();
  return ReadHuggingFaceRope(json, *model, RopeRules(), &model->rope);
}

Status ReadFalcon(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGptSizes({{"hidden_size", "n_embed"},
                {"num_hidden_layers", "n_layer"},
                {"num_attention_heads", "n_head"}},
               &fields, model);
  model->intermediate_size = fields.Int("ffn_hidden_size", model->intermediate_size);
  model->context_length = fields.Int("max_position_embeddings", 2048);
  model->norm_eps = fields.Number("layer_norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = fields.Bool("bias", false);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = model->attention_bias;
  ReadActivation(&fields, "activation", "gelu", model);
  RefuseUnless(&fields, "apply_residual_connection_post_layernorm", false);
  // The first files of 40B do not say that they are grouped.
  const bool grouped =
      fields.Bool("new_decoder_architecture", fields.String("model_type", "") == "RefinedWeb");
  const bool parallel = fields.Bool("parallel_attn", true);
  if (grouped) {
    const bool old_name = fields.Find("num_kv_heads") == nullptr;
    model->num_kv_heads = fields.RequiredInt(old_name ? "n_head_kv" : "num_kv_heads");
    if (!parallel) RefuseUnless(&fields, "parallel_attn", true);
  } else if (fields.Bool("multi_query", true)) {
    model->num_kv_heads = 1;
  }
  model->parallel_blocks = grouped || parallel;
  model->separate_ffn_norm =
      !model->parallel_blocks || (grouped && fields.Int("num_ln_in_parallel_attn", 2) == 2);
  const bool alibi = fields.Bool("alibi", false);
  if (!fields.status().ok()) return fields.status();
  if (!alibi) return ReadHuggingFaceRope(json, *model, RopeRules(), &model->rope);
  model->rope.type = RopeType::kNone;
  model->alibi_bias_max = 8;
  model->alibi_in_bf16 = true;
  return {};
}

Status ReadGptBigCode(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGptSizes({{"n_embd"}, {"n_layer"}, {"n_head"}}, &fields, model);
  if (fields.Bool("multi_query", true)) model->num_kv_heads = 1;
  model->intermediate_size = fields.Int("n_inner", model->intermediate_size);
  model->context_length = fields.Int("n_positions", 1024);
  model->norm_eps = fields.Number("layer_norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = model->attention_output_bias = model->mlp_bias = true;
  model->rope.type = RopeType::kNone;
  ReadActivation(&fields, "activation_function", "gelu_pytorch_tanh", model);
  RefuseUnless(&fields, "scale_attn_weights", true);
  RefuseUnless(&fields, "add_cross_attention", false);
  return fields.status();
}

Status ReadOpt(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGptSizes({{"hidden_size"}, {"num_hidden_layers"}, {"num_attention_heads"}}, &fields, model);
  model->intermediate_size = fields.RequiredInt("ffn_dim");
  model->context_length = fields.Int("max_position_embeddings", 2048);
  model->norm_eps = 1e-5;  // not in the file
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = fields.Bool("enable_bias", true);
  model->attention_output_bias = model->mlp_bias = model->attention_bias;
  model->rope.type = RopeType::kNone;
  ReadActivation(&fields, "activation_function", "relu", model);
  // OPT-350m alone norms sums, and projects its embeddings.
  model->post_norm = !fields.Bool("do_layer_norm_before", true);
  model->final_norm = !model->post_norm && !fields.Bool("_remove_final_layer_norm", false);
  RefuseUnless(&fields, "layer_norm_elementwise_affine", true);
  const int64_t projected = fields.Int("word_embed_proj_dim", model->hidden_size);
  if (projected < 1) fields.Fail("word_embed_proj_dim", fmt::format("is {}", projected));
  if (projected != model->hidden_size) model->embedding_size = projected;
  return fields.status();
}

Status ReadGptNeoX(const Json& json, ModelConfig* model) {
  Json full = json;
  // The old names.
  for (const auto& [old_name, name] : {std::pair{"rotary_emb_base", "rope_theta"},
                                       std::pair{"rotary_pct", "partial_rotary_factor"}}) {
    if (json.contains(old_name) && !json.contains(name)) full[name] = json[old_name];
  }
  FieldReader fields(full, "");
  ReadSizes({}, &fields, model);
  model->num_kv_heads = model->num_heads;
  model->context_length = fields.Int("max_position_embeddings", 2048);
  model->norm_eps = fields.Number("layer_norm_eps", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", false);
  model->attention_bias = fields.Bool("attention_bias", true);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = true;
  model->parallel_blocks = fields.Bool("use_parallel_residual", true);
  ReadActivation(&fields, "hidden_act", "gelu", model);
  if (!fields.status().ok()) return fields.status();
  RopeRules rules;
  rules.partial = 0.25;
  return ReadHuggingFaceRope(full, *model, rules, &model->rope);
}

Status ReadStableLm(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadSizes({.kv_heads = 32}, &fields, model);
  model->context_length = fields.Int("max_position_embeddings", 4096);
  model->norm_eps = fields.Number("layer_norm_eps", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", false);
  model->attention_bias = fields.Bool("use_qkv_bias", false);
  model->parallel_blocks = fields.Bool("use_parallel_residual", false);
  model->separate_ffn_norm = !model->parallel_blocks;
  ReadActivation(&fields, "hidden_act", "silu", model);
  RefuseUnless(&fields, "qk_layernorm", false);
  if (!fields.status().ok()) return fields.status();
  RopeRules rules;
  rules.partial = 0.25;
  return ReadHuggingFaceRope(json, *model, rules, &model->rope);
}

}  // namespace sluice
