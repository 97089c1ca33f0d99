// Llama, and what differs from it in numbers, windows and norms.
#include <fmt/format.h>

#include <cmath>
#include <string>

#include "loaders/hf_readers.h"
#include "loaders/hf_rope.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Llama and what differs from it in numbers only.
struct LlamaRules {
  double norm_eps = 1e-6;
  int64_t context_length = 2048;
  RopeRules rope = {};
  SizeDefaults sizes = {};
  bool reads_rope = true;
};

Status ReadLlamaLike(const Json& json, const LlamaRules& rules, FieldReader* fields,
                     ModelConfig* model) {
  ReadSizes(rules.sizes, fields, model);
  model->context_length = fields->Int("max_position_embeddings", rules.context_length);
  model->norm_eps = fields->Number("rms_norm_eps", rules.norm_eps);
  model->tie_embeddings = fields->Bool("tie_word_embeddings", false);
  ReadActivation(fields, "hidden_act", "silu", model);
  if (!fields->status().ok() || !rules.reads_rope) return fields->status();
  return ReadHuggingFaceRope(json, *model, rules.rope, &model->rope);
}

Status ReadQwen(const Json& json, const SizeDefaults& sizes, FieldReader* fields,
                ModelConfig* model) {
  const LlamaRules rules = {1e-6, 32768, {}, sizes};
  if (Status s = ReadLlamaLike(json, rules, fields, model); !s.ok()) return s;
  // null means none, absent means 4096.
  const bool none = fields->Has("sliding_window") && fields->Find("sliding_window") == nullptr;
  if (!fields->Bool("use_sliding_window", false) || none) return fields->status();
  const int64_t first = fields->Int("max_window_layers", 28);
  ReadWindows(
      fields, fields->Int("sliding_window", 4096),
      [first](int64_t layer) { return layer >= first; }, model);
  return fields->status();
}

// 1 for each layer that rotates queries and keys, or one layer in so many that does not.
void ReadRotatingLayers(FieldReader* fields, ModelConfig* model) {
  if (model->num_layers < 1 || model->num_layers > 4096) return;  // Validate says so
  if (const Json* layers = fields->Find("no_rope_layers"); layers != nullptr) {
    if (!layers->is_array()) return fields->Fail("no_rope_layers", "is not a list of numbers");
    for (const Json& rotates : *layers) {
      if (rotates != 0 && rotates != 1) {
        return fields->Fail("no_rope_layers", "has values other than 0 and 1");
      }
      model->rotating_layers.push_back(rotates.get<int64_t>());
    }
    return;
  }
  const int64_t interval = fields->Int("no_rope_layer_interval", 4);
  if (interval < 1) return fields->Fail("no_rope_layer_interval", fmt::format("is {}", interval));
  model->rotating_layers.reserve(static_cast<size_t>(model->num_layers));
  for (int64_t layer = 0; layer < model->num_layers; ++layer) {
    model->rotating_layers.push_back((layer + 1) % interval != 0);
  }
}

}  // namespace

Status ReadLlama(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = fields.Bool("mlp_bias", false);
  return ReadLlamaLike(json, {}, &fields, model);
}

Status ReadMistral(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  const Status s = ReadLlamaLike(json, {1e-6, 131072, {}, {.kv_heads = 8}}, &fields, model);
  // Absent means 4096, null means none; layer_types are other models'.
  const bool none = fields.Has("sliding_window") && fields.Find("sliding_window") == nullptr;
  if (!s.ok() || none) return s;
  const int64_t window = fields.Int("sliding_window", 4096);
  if (!fields.status().ok()) return fields.status();
  if (window < 1) return {ErrorCode::kCorrupt, fmt::format("sliding_window is {}", window)};
  if (model->num_layers >= 1 && model->num_layers <= 4096) {
    model->layer_windows.assign(static_cast<size_t>(model->num_layers), window);
  }
  return {};
}

// Mistral whose layers may differ in their windows.
Status ReadMinistral(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  const Status s = ReadLlamaLike(json, {1e-6, 131072, {}, {.kv_heads = 8}}, &fields, model);
  const bool none = fields.Has("sliding_window") && fields.Find("sliding_window") == nullptr;
  if (!s.ok() || none) return s;
  ReadWindows(&fields, fields.Int("sliding_window", 4096), kEveryLayer, model);
  return fields.status();
}

Status ReadQwen2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = true;
  return ReadQwen(json, {.kv_heads = 32}, &fields, model);
}

Status ReadQwen3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  return ReadQwen(json, {.kv_heads = 32, .head_dim = 128}, &fields, model);
}

Status ReadPhi3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  LlamaRules rules;
  rules.norm_eps = 1e-5;
  rules.context_length = 4096;
  rules.rope.original_context = 4096;
  rules.rope.partial = 1;
  rules.rope.yarn_is_longrope = true;
  const Status s = ReadLlamaLike(json, rules, &fields, model);
  if (!s.ok() || fields.Find("sliding_window") == nullptr) return s;
  ReadWindows(&fields, fields.Int("sliding_window", 0), kEveryLayer, model);
  return fields.status();
}

Status ReadOlmo2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  return ReadLlamaLike(json, {1e-5, 2048, {}}, &fields, model);
}

Status ReadOlmo3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  LlamaRules rules = {1e-5, 2048, {}};
  rules.reads_rope = false;
  if (Status s = ReadLlamaLike(json, rules, &fields, model); !s.ok()) return s;
  if (!fields.Has("sliding_window") || fields.Find("sliding_window") != nullptr) {
    ReadWindows(
        &fields, fields.Int("sliding_window", 4096),
        [](int64_t layer) { return (layer + 1) % 4 != 0; }, model);
  }
  const double theta = fields.Number("rope_theta", 500000);
  if (!fields.status().ok()) return fields.status();
  return ReadHuggingFaceRopePair(json, theta, theta, model);
}

Status ReadSeedOss(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", true);
  model->attention_output_bias = fields.Bool("attention_out_bias", false);
  model->mlp_bias = fields.Bool("mlp_bias", false);
  return ReadLlamaLike(json, {1e-6, 524288, {}, {.kv_heads = 8, .head_dim = 128}}, &fields, model);
}

Status ReadSmolLm3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = fields.Bool("mlp_bias", false);
  LlamaRules rules = {1e-6, 32768, {.theta = 2e6}, {.kv_heads = 4}};
  if (Status s = ReadLlamaLike(json, rules, &fields, model); !s.ok()) return s;
  // Absent means true here.
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  ReadRotatingLayers(&fields, model);
  if (fields.Bool("use_sliding_window", false) && fields.Find("sliding_window") != nullptr) {
    ReadWindows(
        &fields, fields.Int("sliding_window", 0),
        [model](int64_t layer) { return !model->Rotates(layer); }, model);
  }
  return fields.status();
}

}  // namespace sluice
