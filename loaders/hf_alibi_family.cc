// What knows positions by ALiBi alone (Press et al., 2022). Falcon may, see hf_gpt_family.cc.
#include <fmt/format.h>

#include <string>

#include "formats/quote.h"
#include "loaders/hf_readers.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr double kPaperBiasMax = 8;

void ReadMptAttention(const Json& json, ModelConfig* model, FieldReader* outer) {
  FieldReader fields(json, "attn_config.");
  RefuseUnless(&fields, "alibi", true);
  RefuseUnless(&fields, "prefix_lm", false);
  RefuseUnless(&fields, "qk_ln", false);
  RefuseUnless(&fields, "qk_gn", false);
  RefuseUnless(&fields, "rope", false);
  model->alibi_bias_max = fields.Number("alibi_bias_max", kPaperBiasMax);
  model->attention_scale = fields.Number("softmax_scale", 0);
  const std::string type = fields.String("attn_type", "multihead_attention");
  if (type != "multihead_attention") {
    fields.Fail(Status(ErrorCode::kUnsupported, "attn_config.attn_type " + Quoted(type)));
  }
  if (fields.Int("kv_n_heads", model->num_heads) != model->num_heads) {
    fields.Fail(Status(ErrorCode::kUnsupported, "attn_config.kv_n_heads other than n_heads"));
  }
  if (fields.Find("clip_qkv") != nullptr && fields.Number("clip_qkv", 0) != 0) {
    fields.Fail(Status(ErrorCode::kUnsupported,
                       "attn_config.clip_qkv (clipped queries, keys and "
                       "values)"));
  }
  if (!fields.status().ok()) outer->Fail(fields.status());
}

}  // namespace

Status ReadBloom(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  // The old name wins in transformers, where it is there.
  ReadGptSizes({{"n_embed", "hidden_size"},
                {"n_layer", "num_hidden_layers"},
                {"n_head", "num_attention_heads"}},
               &fields, model);
  model->context_length = fields.Int("seq_length", 2048);
  model->norm_eps = fields.Number("layer_norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = model->attention_output_bias = model->mlp_bias = true;
  model->activation = Activation::kGeluTanh;
  model->rope.type = RopeType::kNone;
  model->alibi_bias_max = kPaperBiasMax;
  RefuseUnless(&fields, "apply_residual_connection_post_layernorm", false);
  return fields.status();
}

Status ReadMpt(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGptSizes({{"d_model"}, {"n_layers"}, {"n_heads"}}, &fields, model);
  model->context_length = fields.Int("max_seq_len", 2048);
  model->norm_eps = fields.Number("layer_norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->activation = Activation::kGelu;
  model->rope.type = RopeType::kNone;
  model->alibi_bias_max = kPaperBiasMax;
  RefuseUnless(&fields, "no_bias", true);
  if (fields.Int("expansion_ratio", 4) != 4) {
    fields.Fail(Status(ErrorCode::kUnsupported, "expansion_ratio other than 4"));
  }
  if (fields.Find("logit_scale") != nullptr) {
    fields.Fail(Status(ErrorCode::kUnsupported, "logit_scale"));
  }
  const Json* attention = fields.Find("attn_config");
  if (attention != nullptr && !attention->is_object()) {
    fields.Fail("attn_config", "is not an object");
  } else if (attention != nullptr) {
    ReadMptAttention(*attention, model, &fields);
  }
  return fields.status();
}

}  // namespace sluice
