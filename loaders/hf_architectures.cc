#include "loaders/hf_architectures.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "formats/quote.h"
#include "loaders/hf_fields.h"
#include "loaders/hf_rope.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

struct ActivationName {
  const char* name;
  Activation activation;
};
// The three spellings of the tanh approximation differ in the order of their roundings only.
constexpr ActivationName kActivationNames[] = {
    {"silu", Activation::kSilu},         {"swish", Activation::kSilu},
    {"gelu", Activation::kGelu},         {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh}, {"gelu_fast", Activation::kGeluTanh},
    {"relu", Activation::kRelu},
};

void ReadActivation(FieldReader* fields, const char* field, const char* fallback,
                    ModelConfig* model) {
  const std::string name = fields->String(field, fallback);
  std::string known;
  for (const ActivationName& entry : kActivationNames) {
    if (name == entry.name) {
      model->activation = entry.activation;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fields->Fail(Status(ErrorCode::kUnsupported,
                      fmt::format("{} {}; supported: {}", field, Quoted(name), known)));
}

// A flag that changes the computation in a way that no description has.
void RefuseUnless(FieldReader* fields, const char* name, bool wanted) {
  if (fields->Bool(name, wanted) == wanted) return;
  fields->Fail(
      Status(ErrorCode::kUnsupported, fmt::format("{} {}", name, wanted ? "false" : "true")));
}

// The numbers that most architectures spell alike.
void ReadSizes(FieldReader* fields, ModelConfig* model) {
  model->vocab_size = fields->RequiredInt("vocab_size");
  model->hidden_size = fields->RequiredInt("hidden_size");
  model->num_layers = fields->RequiredInt("num_hidden_layers");
  model->num_heads = fields->RequiredInt("num_attention_heads");
  model->num_kv_heads = fields->Int("num_key_value_heads", model->num_heads);
  model->head_dim =
      fields->Int("head_dim", model->num_heads > 0 ? model->hidden_size / model->num_heads : 0);
  model->intermediate_size = fields->RequiredInt("intermediate_size");
}

// "sliding_attention" and "full_attention" for each layer.
void ReadLayerTypes(FieldReader* fields, const Json& types, int64_t window, ModelConfig* model) {
  if (!types.is_array()) return fields->Fail("layer_types", "is not a list of names");
  for (const Json& type : types) {
    if (!type.is_string()) return fields->Fail("layer_types", "is not a list of names");
    const std::string name = type.get<std::string>();
    if (name != "sliding_attention" && name != "full_attention") {
      return fields->Fail(Status(ErrorCode::kUnsupported, "layer_types: " + Quoted(name)));
    }
    model->layer_windows.push_back(name == "sliding_attention" ? window : 0);
  }
}

// The window of each layer: layer_types says which have one, else has_window does.
template <typename HasWindow>
void ReadWindows(FieldReader* fields, int64_t window, HasWindow has_window, ModelConfig* model) {
  if (!fields->status().ok()) return;  // num_layers may be anything
  if (window < 1) return fields->Fail("sliding_window", fmt::format("is {}", window));
  if (model->num_layers < 1 || model->num_layers > 4096) return;  // Validate says so
  if (const Json* types = fields->Find("layer_types"); types != nullptr) {
    ReadLayerTypes(fields, *types, window, model);
  } else {
    model->layer_windows.reserve(static_cast<size_t>(model->num_layers));
    for (int64_t layer = 0; layer < model->num_layers; ++layer) {
      model->layer_windows.push_back(has_window(layer) ? window : 0);
    }
  }
  bool any = false;
  for (const int64_t w : model->layer_windows) any = any || w != 0;
  if (!any) model->layer_windows.clear();
}

constexpr auto kEveryLayer = [](int64_t) { return true; };

// Llama and what differs from it in numbers only.
struct LlamaRules {
  double norm_eps = 1e-6;
  int64_t context_length = 2048;
  RopeRules rope = {};
  int64_t head_dim = 0;  // where the file does not say; 0: hidden_size / num_attention_heads
};

Status ReadLlamaLike(const Json& json, const LlamaRules& rules, FieldReader* fields,
                     ModelConfig* model) {
  ReadSizes(fields, model);
  if (rules.head_dim != 0) model->head_dim = fields->Int("head_dim", rules.head_dim);
  model->context_length = fields->Int("max_position_embeddings", rules.context_length);
  model->norm_eps = fields->Number("rms_norm_eps", rules.norm_eps);
  model->tie_embeddings = fields->Bool("tie_word_embeddings", false);
  ReadActivation(fields, "hidden_act", "silu", model);
  if (!fields->status().ok()) return fields->status();
  return ReadHuggingFaceRope(json, *model, rules.rope, &model->rope);
}

Status ReadLlama(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = fields.Bool("mlp_bias", false);
  return ReadLlamaLike(json, {}, &fields, model);
}

Status ReadMistral(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  const Status s = ReadLlamaLike(json, {1e-6, 131072, {}}, &fields, model);
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

Status ReadQwen(const Json& json, int64_t head_dim, FieldReader* fields, ModelConfig* model) {
  const LlamaRules rules = {1e-6, 32768, {}, head_dim};
  if (Status s = ReadLlamaLike(json, rules, fields, model); !s.ok()) return s;
  if (!fields->Bool("use_sliding_window", false)) return fields->status();
  const int64_t first = fields->Int("max_window_layers", 28);
  ReadWindows(
      fields, fields->Int("sliding_window", 4096),
      [first](int64_t layer) { return layer >= first; }, model);
  return fields->status();
}

Status ReadQwen2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = true;
  return ReadQwen(json, /*head_dim=*/0, &fields, model);
}

Status ReadQwen3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->attention_bias = fields.Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  return ReadQwen(json, /*head_dim=*/128, &fields, model);
}

Status ReadPhi3(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  LlamaRules rules;
  rules.norm_eps = 1e-5;
  rules.context_length = 4096;
  rules.rope.original_context = 4096;
  rules.rope.partial = true;
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

// What the three Gemmas share. Only 3 leaves sizes out where they are the defaults.
void ReadGemmaSizes(FieldReader* fields, ModelConfig* model) {
  ReadSizes(fields, model);
  model->context_length = fields->Int("max_position_embeddings", 8192);
  model->norm_eps = fields->Number("rms_norm_eps", 1e-6);
  model->tie_embeddings = fields->Bool("tie_word_embeddings", true);
  model->attention_bias = fields->Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  model->embedding_scale = std::sqrt(static_cast<double>(model->hidden_size));
}

Status ReadGemma(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGemmaSizes(&fields, model);
  // "gelu" in the first files meant the approximation.
  const bool named = fields.Find("hidden_activation") != nullptr;
  const std::string activation = fields.String("hidden_act", "gelu");
  if (named) {
    ReadActivation(&fields, "hidden_activation", "", model);
  } else if (activation == "gelu") {
    model->activation = Activation::kGeluTanh;
  } else {
    ReadActivation(&fields, "hidden_act", "", model);
  }
  if (!fields.status().ok()) return fields.status();
  return ReadHuggingFaceRope(json, *model, RopeRules(), &model->rope);
}

void ReadGemmaAttention(FieldReader* fields, double scalar, double attention_cap, double logit_cap,
                        ModelConfig* model) {
  const double given = fields->Number("query_pre_attn_scalar", scalar);
  if (!(given > 0)) return fields->Fail("query_pre_attn_scalar", fmt::format("is {}", given));
  model->attention_scale = 1.0 / std::sqrt(given);
  // null means none, also where the default is another.
  const auto cap = [fields](const char* name, double fallback) {
    return fields->Number(name, fields->Has(name) ? 0 : fallback);
  };
  model->attention_softcap = cap("attn_logit_softcapping", attention_cap);
  model->logit_softcap = cap("final_logit_softcapping", logit_cap);
  ReadActivation(fields, "hidden_activation", "gelu_pytorch_tanh", model);
  RefuseUnless(fields, "use_bidirectional_attention", false);
}

Status ReadGemma2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGemmaSizes(&fields, model);
  ReadGemmaAttention(&fields, 256, 50, 30, model);
  const bool windows = !fields.Has("sliding_window") || fields.Find("sliding_window") != nullptr;
  if (windows) {
    ReadWindows(
        &fields, fields.Int("sliding_window", 4096), [](int64_t layer) { return layer % 2 == 0; },
        model);
  }
  if (!fields.status().ok()) return fields.status();
  return ReadHuggingFaceRope(json, *model, RopeRules(), &model->rope);
}

Status ReadGemma3Text(const Json& json, ModelConfig* model) {
  // Sizes that equal those of the class are left out of some files.
  Json full = {{"vocab_size", 262208},      {"hidden_size", 2304},
               {"intermediate_size", 9216}, {"num_hidden_layers", 26},
               {"num_attention_heads", 8},  {"num_key_value_heads", 4},
               {"head_dim", 256},           {"max_position_embeddings", 131072}};
  full.update(json);
  FieldReader fields(full, "");
  ReadGemmaSizes(&fields, model);
  ReadGemmaAttention(&fields, 256, 0, 0, model);
  const int64_t pattern = fields.Int("sliding_window_pattern", 6);
  if (pattern < 1) fields.Fail("sliding_window_pattern", fmt::format("is {}", pattern));
  ReadWindows(
      &fields, fields.Int("sliding_window", 4096),
      [pattern](int64_t layer) { return (layer + 1) % pattern != 0; }, model);
  if (!fields.status().ok()) return fields.status();
  if (Status s = ReadHuggingFaceRopePair(full, model); !s.ok()) return s;
  if (model->layer_windows.empty()) model->local_rope.reset();
  return {};
}

// The language model of a checkpoint that also reads images.
Status ReadGemma3(const Json& json, ModelConfig* model) {
  const auto text = json.find("text_config");
  if (text == json.end() || !text->is_object()) {
    return {ErrorCode::kCorrupt, "text_config is missing or not an object"};
  }
  return ReadGemma3Text(*text, model).WithContext("text_config");
}

Status ReadStarcoder2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadSizes(&fields, model);
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
  const auto size = [&fields](const char* name, const char* old_name) {
    return fields.Find(name) != nullptr ? fields.Int(name, 0) : fields.RequiredInt(old_name);
  };
  model->vocab_size = fields.RequiredInt("vocab_size");
  model->hidden_size = size("hidden_size", "n_embed");
  model->num_layers = size("num_hidden_layers", "n_layer");
  model->num_heads = size("num_attention_heads", "n_head");
  model->head_dim = model->num_heads > 0 ? model->hidden_size / model->num_heads : 0;
  model->intermediate_size =
      fields.Int("ffn_hidden_size", model->hidden_size < (1 << 24) ? 4 * model->hidden_size : 0);
  model->context_length = fields.Int("max_position_embeddings", 2048);
  model->norm_eps = fields.Number("layer_norm_epsilon", 1e-5);
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = fields.Bool("bias", false);
  model->attention_output_bias = model->attention_bias;
  model->mlp_bias = model->attention_bias;
  ReadActivation(&fields, "activation", "gelu", model);
  RefuseUnless(&fields, "alibi", false);
  RefuseUnless(&fields, "apply_residual_connection_post_layernorm", false);
  const bool grouped = fields.Bool("new_decoder_architecture", false);
  const bool parallel = fields.Bool("parallel_attn", true);
  if (grouped) {
    model->num_kv_heads = size("num_kv_heads", "n_head_kv");
    if (!parallel) RefuseUnless(&fields, "parallel_attn", true);
  } else {
    model->num_kv_heads = fields.Bool("multi_query", true) ? 1 : model->num_heads;
  }
  model->parallel_blocks = grouped || parallel;
  model->separate_ffn_norm =
      !model->parallel_blocks || (grouped && fields.Int("num_ln_in_parallel_attn", 2) == 2);
  if (!fields.status().ok()) return fields.status();
  return ReadHuggingFaceRope(json, *model, RopeRules(), &model->rope);
}

Status ReadGptBigCode(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  model->vocab_size = fields.RequiredInt("vocab_size");
  model->hidden_size = fields.RequiredInt("n_embd");
  model->num_layers = fields.RequiredInt("n_layer");
  model->num_heads = fields.RequiredInt("n_head");
  model->num_kv_heads = fields.Bool("multi_query", true) ? 1 : model->num_heads;
  model->head_dim = model->num_heads > 0 ? model->hidden_size / model->num_heads : 0;
  model->intermediate_size =
      fields.Int("n_inner", model->hidden_size < (1 << 24) ? 4 * model->hidden_size : 0);
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
  model->vocab_size = fields.RequiredInt("vocab_size");
  model->hidden_size = fields.RequiredInt("hidden_size");
  model->num_layers = fields.RequiredInt("num_hidden_layers");
  model->num_heads = fields.RequiredInt("num_attention_heads");
  model->num_kv_heads = model->num_heads;
  model->head_dim = model->num_heads > 0 ? model->hidden_size / model->num_heads : 0;
  model->intermediate_size = fields.RequiredInt("ffn_dim");
  model->context_length = fields.Int("max_position_embeddings", 2048);
  model->norm_eps = 1e-5;  // not in the file
  model->tie_embeddings = fields.Bool("tie_word_embeddings", true);
  model->attention_bias = fields.Bool("enable_bias", true);
  model->attention_output_bias = model->mlp_bias = model->attention_bias;
  model->rope.type = RopeType::kNone;
  ReadActivation(&fields, "activation_function", "relu", model);
  // OPT-350m alone norms the outputs of its blocks, and projects its embeddings.
  RefuseUnless(&fields, "do_layer_norm_before", true);
  RefuseUnless(&fields, "_remove_final_layer_norm", false);
  RefuseUnless(&fields, "layer_norm_elementwise_affine", true);
  const int64_t projected = fields.Int("word_embed_proj_dim", model->hidden_size);
  if (projected != model->hidden_size) {
    fields.Fail(Status(
        ErrorCode::kUnsupported,
        fmt::format("word_embed_proj_dim {} with hidden_size {}", projected, model->hidden_size)));
  }
  return fields.status();
}

constexpr HuggingFaceArchitecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM", ReadLlama, "llama"},
    {"mistral", "MistralForCausalLM", ReadMistral, "mistral"},
    {"qwen2", "Qwen2ForCausalLM", ReadQwen2, "qwen2"},
    {"qwen3", "Qwen3ForCausalLM", ReadQwen3, "qwen3"},
    {"phi3", "Phi3ForCausalLM", ReadPhi3, "phi3"},
    {"gemma", "GemmaForCausalLM", ReadGemma, "gemma"},
    {"gemma2", "Gemma2ForCausalLM", ReadGemma2, "gemma2"},
    {"gemma3_text", "Gemma3ForCausalLM", ReadGemma3Text, "gemma3"},
    {"gemma3", "Gemma3ForConditionalGeneration", ReadGemma3, "gemma3"},
    {"olmo2", "Olmo2ForCausalLM", ReadOlmo2, "olmo2"},
    {"falcon", "FalconForCausalLM", ReadFalcon, "falcon"},
    {"starcoder2", "Starcoder2ForCausalLM", ReadStarcoder2, "starcoder2"},
    {"gpt_bigcode", "GPTBigCodeForCausalLM", ReadGptBigCode, "gpt_bigcode"},
    {"opt", "OPTForCausalLM", ReadOpt, "opt"},
};

}  // namespace

std::span<const HuggingFaceArchitecture> HuggingFaceArchitectures() { return kArchitectures; }

}  // namespace sluice
