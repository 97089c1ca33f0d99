// The Gemmas: scaled embedding, soft caps, windows in turn.
#include <fmt/format.h>

#include <cmath>
#include <string>

#include "loaders/hf_readers.h"
#include "loaders/hf_rope.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// What the three Gemmas share. Only 3 leaves sizes out where they are the defaults.
void ReadGemmaSizes(int64_t kv_heads, FieldReader* fields, ModelConfig* model) {
  ReadSizes({kv_heads, /*head_dim=*/256}, fields, model);
  model->context_length = fields->Int("max_position_embeddings", 8192);
  model->norm_eps = fields->Number("rms_norm_eps", 1e-6);
  model->tie_embeddings = fields->Bool("tie_word_embeddings", true);
  model->attention_bias = fields->Bool("attention_bias", false);
  model->attention_output_bias = model->attention_bias;
  model->embedding_scale = std::sqrt(static_cast<double>(model->hidden_size));
}

// null means none, also where the default is another.
double ReadCap(FieldReader* fields, const char* name, double fallback) {
  return fields->Number(name, fields->Has(name) ? 0 : fallback);
}

void ReadGemmaAttention(FieldReader* fields, double logit_cap, ModelConfig* model) {
  const double given = fields->Number("query_pre_attn_scalar", 256);
  if (!(given > 0)) return fields->Fail("query_pre_attn_scalar", fmt::format("is {}", given));
  model->attention_scale = 1.0 / std::sqrt(given);
  model->logit_softcap = ReadCap(fields, "final_logit_softcapping", logit_cap);
  ReadActivation(fields, "hidden_activation", "gelu_pytorch_tanh", model);
  RefuseUnless(fields, "use_bidirectional_attention", false);
}

}  // namespace

Status ReadGemma(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGemmaSizes(/*kv_heads=*/16, &fields, model);
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

Status ReadGemma2(const Json& json, ModelConfig* model) {
  FieldReader fields(json, "");
  ReadGemmaSizes(/*kv_heads=*/4, &fields, model);
  ReadGemmaAttention(&fields, 30, model);
  model->attention_softcap = ReadCap(&fields, "attn_logit_softcapping", 50);
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
  ReadGemmaSizes(/*kv_heads=*/4, &fields, model);
  // attn_logit_softcapping may be there, but no implementation applies it.
  ReadGemmaAttention(&fields, 0, model);
  const int64_t pattern = fields.Int("sliding_window_pattern", 6);
  if (pattern < 1) fields.Fail("sliding_window_pattern", fmt::format("is {}", pattern));
  ReadWindows(
      &fields, fields.Int("sliding_window", 4096),
      [pattern](int64_t layer) { return (layer + 1) % pattern != 0; }, model);
  if (!fields.status().ok()) return fields.status();
  if (Status s =
          ReadHuggingFaceRopePair(full, 1e6, fields.Number("rope_local_base_freq", 10000), model);
      !s.ok())
    return s;
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

}  // namespace sluice
