#include "loaders/hf_config.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "formats/quote.h"
#include "formats/strict_json.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Reads members with defaults (null is absent) and remembers the first error.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {}

  const Json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  int64_t Int(const char* name, int64_t fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
    if (!fits) return Fail(name, "is not a 64-bit integer"), fallback;
    return value->get<int64_t>();
  }

  int64_t RequiredInt(const char* name) {
    if (Find(name) == nullptr) return Fail(name, "is missing"), 0;
    return Int(name, 0);
  }

  double Number(const char* name, double fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_number()) return Fail(name, "is not a number"), fallback;
    return value->get<double>();
  }

  double RequiredNumber(const char* name) {
    if (Find(name) == nullptr) return Fail(name, "is missing"), 0;
    return Number(name, 0);
  }

  bool Bool(const char* name, bool fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return Fail(name, "is not true or false"), fallback;
    return value->get<bool>();
  }

  std::string String(const char* name, const char* fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_string()) return Fail(name, "is not a string"), fallback;
    return value->get<std::string>();
  }

  void Fail(const char* name, const std::string& problem) {
    Fail(Status(ErrorCode::kCorrupt, prefix_ + name + " " + problem));
  }
  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  const Json& object_;
  std::string prefix_;
  Status status_;
};

Status RefuseOtherModels(const Json& config) {
  FieldReader fields(config, "");
  const std::string type = fields.String("model_type", "");
  if (!fields.status().ok()) return fields.status();
  std::string name = type;
  bool supported = type == "llama" || type.empty();
  if (const Json* names = fields.Find("architectures"); names != nullptr) {
    if (!names->is_array() || names->empty() || !names->front().is_string()) {
      return {ErrorCode::kCorrupt, "architectures is not a list of names"};
    }
    name = names->front().get<std::string>();
    supported = supported && name == "LlamaForCausalLM";
  }
  if (name.empty()) return {ErrorCode::kCorrupt, "neither architectures nor model_type is there"};
  if (!supported) {
    return {ErrorCode::kUnsupported,
            fmt::format("architecture {} (model_type {}) is not supported; supported: "
                        "LlamaForCausalLM",
                        Quoted(name), Quoted(type))};
  }
  const Json* quantization = fields.Find("quantization_config");
  if (quantization == nullptr) return {};
  const Json method = quantization->is_object()
                          ? quantization->value("quant_method", Json("unnamed"))
                          : Json("unnamed");
  return {ErrorCode::kUnsupported,
          "a quantized checkpoint (quantization_config, quant_method " +
              Quoted(method.is_string() ? method.get<std::string>() : "unnamed") + ")"};
}

// The formula of the YaRN paper, with DeepSeek's two multipliers.
double YarnAttentionFactor(FieldReader* fields, double factor) {
  const auto mscale = [factor](double multiplier) {
    return factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(factor) + 1.0;
  };
  const double numerator = fields->Number("mscale", 0);
  const double denominator = fields->Number("mscale_all_dim", 0);
  const bool both = numerator != 0 && denominator != 0;
  return fields->Number("attention_factor",
                        both ? mscale(numerator) / mscale(denominator) : mscale(1));
}

void ReadYarn(FieldReader* fields, double context_length, RopeConfig* rope) {
  rope->factor = fields->Number("factor", context_length / rope->original_context);
  rope->attention_factor = YarnAttentionFactor(fields, rope->factor);
  // Zero means the default there.
  const double beta_fast = fields->Number("beta_fast", 0);
  const double beta_slow = fields->Number("beta_slow", 0);
  rope->beta_fast = beta_fast != 0 ? beta_fast : 32;
  rope->beta_slow = beta_slow != 0 ? beta_slow : 1;
  rope->truncate = fields->Bool("truncate", true);
}

void ReadLlama3(FieldReader* fields, RopeConfig* rope) {
  rope->factor = fields->RequiredNumber("factor");
  rope->low_freq_factor = fields->RequiredNumber("low_freq_factor");
  rope->high_freq_factor = fields->RequiredNumber("high_freq_factor");
}

// `scaling` is rope_scaling or rope_parameters, or an empty object.
Status ReadRope(const Json& config, const Json& scaling, const char* prefix, ModelConfig* model) {
  FieldReader outer(config, "");
  FieldReader fields(scaling, prefix);
  RopeConfig& rope = model->rope;
  rope.dim = model->head_dim;
  rope.theta = fields.Number("rope_theta", outer.Number("rope_theta", 10000.0));
  for (const auto& [name, value] : scaling.items()) {
    if (value.is_object()) {
      return {
          ErrorCode::kUnsupported,
          fmt::format("rotary embeddings that differ by layer type ({}{})", prefix, Quoted(name))};
    }
  }
  for (FieldReader* reader : {&outer, &fields}) {
    if (reader->Number("partial_rotary_factor", 1) != 1) {
      return {ErrorCode::kUnsupported, "partial_rotary_factor other than 1"};
    }
  }
  const auto context_length = static_cast<double>(model->context_length);
  const double original_context =
      outer.Number("original_max_position_embeddings",
                   fields.Number("original_max_position_embeddings", context_length));
  const std::string type = fields.String("rope_type", fields.String("type", "default").c_str());
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    rope.factor = fields.RequiredNumber("factor");
  } else if (type == "llama3") {
    rope.type = RopeType::kLlama3;
    rope.original_context = original_context;
    ReadLlama3(&fields, &rope);
  } else if (type == "yarn") {
    rope.type = RopeType::kYarn;
    rope.original_context = original_context;
    ReadYarn(&fields, context_length, &rope);
  } else if (type != "default") {
    return {ErrorCode::kUnsupported,
            "RoPE type " + Quoted(type) + "; supported: default, linear, llama3, yarn"};
  }
  return outer.status().ok() ? fields.status() : outer.status();
}

Status ReadRope(const Json& config, ModelConfig* model) {
  // transformers' order: rope_scaling wins unless it is absent or empty.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const auto found = config.find(name);
    if (found == config.end() || found->is_null() || found->empty()) continue;
    if (!found->is_object()) {
      return {ErrorCode::kCorrupt, std::string(name) + " is not an object"};
    }
    return ReadRope(config, *found, (std::string(name) + ".").c_str(), model);
  }
  return ReadRope(config, Json::object(), "", model);
}

Result<ModelConfig> ReadLlama(const Json& json) {
  FieldReader fields(json, "");
  ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = fields.RequiredInt("vocab_size");
  config.hidden_size = fields.RequiredInt("hidden_size");
  config.num_layers = fields.RequiredInt("num_hidden_layers");
  config.num_heads = fields.RequiredInt("num_attention_heads");
  config.num_kv_heads = fields.Int("num_key_value_heads", config.num_heads);
  config.head_dim =
      fields.Int("head_dim", config.num_heads > 0 ? config.hidden_size / config.num_heads : 0);
  config.intermediate_size = fields.RequiredInt("intermediate_size");
  config.context_length = fields.Int("max_position_embeddings", 2048);
  config.norm_eps = fields.Number("rms_norm_eps", 1e-6);
  config.attention_bias = fields.Bool("attention_bias", false);
  config.attention_output_bias = config.attention_bias;
  config.mlp_bias = fields.Bool("mlp_bias", false);
  config.tie_embeddings = fields.Bool("tie_word_embeddings", false);
  const std::string activation = fields.String("hidden_act", "silu");
  if (!fields.status().ok()) return fields.status();
  if (activation != "silu") {
    return Status(ErrorCode::kUnsupported,
                  "hidden_act " + Quoted(activation) + "; supported: silu");
  }
  if (Status s = ReadRope(json, &config); !s.ok()) return s;
  if (Status s = config.Validate(); !s.ok()) return s;
  return config;
}

}  // namespace

Result<ModelConfig> ModelConfigFromHuggingFace(std::string_view config_json) {
  Result<Json> json = ParseStrictJson(config_json);
  if (!json.ok()) return json.status();
  if (!json->is_object()) return Status(ErrorCode::kCorrupt, "not a JSON object");
  if (Status s = RefuseOtherModels(*json); !s.ok()) return s;
  return ReadLlama(*json);
}

}  // namespace sluice
