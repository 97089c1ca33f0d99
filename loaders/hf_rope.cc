#include "loaders/hf_rope.h"

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "formats/quote.h"
#include "loaders/hf_fields.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

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

std::vector<float> Divisors(FieldReader* fields, const char* name) {
  std::vector<float> values;
  const Json* array = fields->Find(name);
  if (array == nullptr) return fields->Fail(name, "is missing"), values;
  if (!array->is_array()) return fields->Fail(name, "is not a list of numbers"), values;
  for (const Json& value : *array) {
    if (!value.is_number()) return fields->Fail(name, "is not a list of numbers"), values;
    values.push_back(static_cast<float>(value.get<double>()));
  }
  return values;
}

// Ding et al., 2024; the factor of the paper's section on attention, unless it is given.
void ReadLongRope(FieldReader* fields, double context_length, RopeConfig* rope) {
  rope->short_divisors = Divisors(fields, "short_factor");
  rope->long_divisors = Divisors(fields, "long_factor");
  const double factor = fields->Number("factor", context_length / rope->original_context);
  const double by_formula =
      factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(rope->original_context));
  rope->attention_factor = fields->Number("attention_factor", by_formula);
}

// `scaling` is rope_scaling or rope_parameters, or an empty object.
Status ReadScaling(const Json& config, const Json& scaling, const std::string& prefix,
                   const ModelConfig& model, const RopeRules& rules, RopeConfig* rope) {
  FieldReader outer(config, "");
  FieldReader fields(scaling, prefix);
  rope->theta = fields.Number("rope_theta", outer.Number("rope_theta", rules.theta));
  for (const auto& [name, value] : scaling.items()) {
    if (value.is_object()) {
      return {
          ErrorCode::kUnsupported,
          fmt::format("rotary embeddings that differ by layer type ({}{})", prefix, Quoted(name))};
    }
  }
  const double partial =
      fields.Number("partial_rotary_factor",
                    outer.Number("partial_rotary_factor", rules.partial != 0 ? rules.partial : 1));
  if (partial != 1 && rules.partial == 0) {
    return {ErrorCode::kUnsupported, "partial_rotary_factor other than 1"};
  }
  if (!(partial > 0 && partial <= 1)) {
    return {ErrorCode::kCorrupt, fmt::format("partial_rotary_factor is {}", partial)};
  }
  rope->dim = static_cast<int64_t>(static_cast<double>(model.head_dim) * partial);
  const auto context_length = static_cast<double>(model.context_length);
  const double original_context =
      outer.Number("original_max_position_embeddings",
                   rules.original_context != 0
                       ? rules.original_context
                       : fields.Number("original_max_position_embeddings", context_length));
  const std::string type = fields.String("rope_type", fields.String("type", "default").c_str());
  if (type == "longrope" || type == "su" || (type == "yarn" && rules.yarn_is_longrope)) {
    rope->type = RopeType::kLongRope;
    rope->original_context = original_context;
    ReadLongRope(&fields, context_length, rope);
  } else if (type == "linear") {
    rope->type = RopeType::kLinear;
    rope->factor = fields.RequiredNumber("factor");
  } else if (type == "dynamic") {
    rope->type = RopeType::kDynamic;
    rope->original_context = context_length;
    rope->factor = fields.RequiredNumber("factor");
  } else if (type == "llama3") {
    rope->type = RopeType::kLlama3;
    rope->original_context = original_context;
    ReadLlama3(&fields, rope);
  } else if (type == "yarn") {
    rope->type = RopeType::kYarn;
    rope->original_context = original_context;
    ReadYarn(&fields, context_length, rope);
  } else if (type != "default") {
    return {ErrorCode::kUnsupported,
            "RoPE type " + Quoted(type) +
                "; supported: default, linear, dynamic, llama3, yarn, longrope"};
  }
  return outer.status().ok() ? fields.status() : outer.status();
}

// The object by that name; null if it is absent, null or empty.
Result<const Json*> FindObject(const Json& config, const char* name) {
  const auto found = config.find(name);
  if (found == config.end() || found->is_null() || found->empty()) return nullptr;
  if (!found->is_object()) {
    return Status(ErrorCode::kCorrupt, std::string(name) + " is not an object");
  }
  return &*found;
}

}  // namespace

Status ReadHuggingFaceRope(const Json& config, const ModelConfig& model, const RopeRules& rules,
                           RopeConfig* rope) {
  // transformers' order: rope_scaling wins unless it is absent or empty.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Result<const Json*> found = FindObject(config, name);
    if (!found.ok()) return found.status();
    if (*found == nullptr) continue;
    return ReadScaling(config, **found, std::string(name) + ".", model, rules, rope);
  }
  return ReadScaling(config, Json::object(), "", model, rules, rope);
}

Status ReadHuggingFaceRopePair(const Json& config, double theta, double local_theta,
                               ModelConfig* model) {
  const Result<const Json*> pair = FindObject(config, "rope_parameters");
  if (!pair.ok()) return pair.status();
  // The new form has an object for each kind of layer.
  Json global_config = config;
  Json local_config = {{"rope_theta", local_theta}};
  if (*pair != nullptr) {
    for (const auto& [name, kind] : {std::pair{"full_attention", &global_config},
                                     std::pair{"sliding_attention", &local_config}}) {
      const Result<const Json*> found = FindObject(**pair, name);
      if (!found.ok()) return found.status().WithContext("rope_parameters");
      kind->erase("rope_parameters");
      if (*found != nullptr) (*kind)["rope_parameters"] = **found;
    }
  }
  RopeRules rules;
  rules.theta = theta;
  if (Status s = ReadHuggingFaceRope(global_config, *model, rules, &model->rope); !s.ok()) return s;
  return ReadHuggingFaceRope(local_config, *model, RopeRules(), &model->local_rope.emplace());
}

}  // namespace sluice
