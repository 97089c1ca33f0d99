#include "loaders/hf_readers.h"

#include <fmt/format.h>

#include <string>

#include "formats/quote.h"

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

}  // namespace

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

void RefuseUnless(FieldReader* fields, const char* name, bool wanted) {
  if (fields->Bool(name, wanted) == wanted) return;
  fields->Fail(
      Status(ErrorCode::kUnsupported, fmt::format("{} {}", name, wanted ? "false" : "true")));
}

void ReadSizes(const SizeDefaults& defaults, FieldReader* fields, ModelConfig* model) {
  model->vocab_size = fields->RequiredInt("vocab_size");
  model->hidden_size = fields->RequiredInt("hidden_size");
  model->num_layers = fields->RequiredInt("num_hidden_layers");
  model->num_heads = fields->RequiredInt("num_attention_heads");
  const auto absent = [fields](const char* name, int64_t fallback, int64_t null) {
    return fallback != 0 && !fields->Has(name) ? fallback : null;
  };
  model->num_kv_heads = fields->Int(
      "num_key_value_heads", absent("num_key_value_heads", defaults.kv_heads, model->num_heads));
  const int64_t divided = model->num_heads > 0 ? model->hidden_size / model->num_heads : 0;
  model->head_dim = fields->Int("head_dim", absent("head_dim", defaults.head_dim, divided));
  model->intermediate_size = fields->RequiredInt("intermediate_size");
}

void ReadGptSizes(const GptSizeNames& names, FieldReader* fields, ModelConfig* model) {
  const auto read = [fields](const GptSizeNames::Name& name) {
    const bool is_second = name.second != nullptr && fields->Find(name.first) == nullptr;
    return fields->RequiredInt(is_second ? name.second : name.first);
  };
  model->vocab_size = fields->RequiredInt("vocab_size");
  model->hidden_size = read(names.hidden_size);
  model->num_layers = read(names.num_layers);
  model->num_heads = read(names.num_heads);
  model->num_kv_heads = model->num_heads;
  model->head_dim = model->num_heads > 0 ? model->hidden_size / model->num_heads : 0;
  const bool fits = model->hidden_size > 0 && model->hidden_size < (1 << 24);  // Validate says so
  model->intermediate_size = fits ? 4 * model->hidden_size : 0;
}

void ReadWindows(FieldReader* fields, int64_t window,
                 const std::function<bool(int64_t layer)>& has_window, ModelConfig* model) {
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

}  // namespace sluice
