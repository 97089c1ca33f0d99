#include "formats/model_config.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>

#include "formats/quote.h"
#include "formats/strict_json.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxCount = (int64_t{1} << 31) - 1;  // vocabulary, context
constexpr int64_t kMaxLayers = 4096;

Status OutOfRange(const char* field, const std::string& value, const char* bounds) {
  return {ErrorCode::kCorrupt, fmt::format("{} is {}, not {}", field, value, bounds)};
}

Status CheckSize(const char* field, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return {};
  return OutOfRange(field, std::to_string(value), fmt::format("between 1 and {}", max).c_str());
}

// NaN fails every comparison, so it is out of range.
Status CheckNumber(const char* field, double value, double min, double max) {
  if (value >= min && value <= max) return {};
  return OutOfRange(field, fmt::format("{}", value),
                    fmt::format("between {} and {}", min, max).c_str());
}

Status FirstError(std::initializer_list<Status> checks) {
  for (const Status& check : checks) {
    if (!check.ok()) return check;
  }
  return {};
}

// Present for the types that use them, and only there.
Status CheckDivisors(const char* field, const std::vector<float>& divisors, const RopeConfig& rope,
                     RopeType type, bool required) {
  if (divisors.empty() && !(required && rope.type == type)) return {};
  if (rope.type != type) {
    return {ErrorCode::kCorrupt, fmt::format("{} do not go with this rope type", field)};
  }
  if (divisors.size() != static_cast<uint64_t>(rope.dim) / 2) {
    return {ErrorCode::kCorrupt, fmt::format("{} has {} values, rope.dim / 2 is {}", field,
                                             divisors.size(), rope.dim / 2)};
  }
  for (const float divisor : divisors) {
    if (Status s = CheckNumber(field, divisor, 1e-6, 1e6); !s.ok()) return s;
  }
  return {};
}

Status ValidateRope(const RopeConfig& rope, int64_t head_dim) {
  const bool rotates = rope.type != RopeType::kNone;
  if (rope.dim < (rotates ? 2 : 0) || rope.dim > head_dim || rope.dim % 2 != 0) {
    return OutOfRange("rope.dim", std::to_string(rope.dim), "even and at most head_dim");
  }
  const bool scales = rope.type == RopeType::kLlama3 || rope.type == RopeType::kYarn ||
                      rope.type == RopeType::kDynamic || rope.type == RopeType::kLongRope;
  // theta of 1 turns all pairs alike; yarn divides by its logarithm.
  const double min_theta = rope.type == RopeType::kYarn ? 1.001 : 1.0;
  // Its exponent is dim / (dim - 2).
  if (rope.type == RopeType::kDynamic && rope.dim < 4) {
    return OutOfRange("rope.dim", std::to_string(rope.dim), "at least 4 for the type dynamic");
  }
  Status numbers = FirstError({
      CheckNumber("rope.theta", rope.theta, min_theta, 1e30),
      CheckNumber("rope.factor", rope.factor, rope.type == RopeType::kDynamic ? 1 : 1e-3, 1e6),
      CheckNumber("rope.original_context", rope.original_context, scales ? 1 : 0, kMaxCount),
      CheckNumber("rope.low_freq_factor", rope.low_freq_factor, 1e-3, 1e6),
      CheckNumber("rope.high_freq_factor", rope.high_freq_factor, 1e-3, 1e6),
      CheckNumber("rope.beta_fast", rope.beta_fast, 1e-3, 1e6),
      CheckNumber("rope.beta_slow", rope.beta_slow, 1e-3, 1e6),
      CheckNumber("rope.attention_factor", rope.attention_factor, 1e-3, 1e3),
      CheckDivisors("rope.frequency_divisors", rope.frequency_divisors, rope, RopeType::kDefault,
                    false),
      CheckDivisors("rope.short_divisors", rope.short_divisors, rope, RopeType::kLongRope, true),
      CheckDivisors("rope.long_divisors", rope.long_divisors, rope, RopeType::kLongRope, true),
  });
  if (!numbers.ok()) return numbers;
  if (rope.type == RopeType::kLlama3 && rope.high_freq_factor <= rope.low_freq_factor) {
    return OutOfRange("rope.high_freq_factor", fmt::format("{}", rope.high_freq_factor),
                      "above rope.low_freq_factor");
  }
  return {};
}

struct RopeTypeName {
  RopeType type;
  const char* name;
};
constexpr RopeTypeName kRopeTypes[] = {
    {RopeType::kNone, "none"},         {RopeType::kDefault, "default"},
    {RopeType::kLinear, "linear"},     {RopeType::kLlama3, "llama3"},
    {RopeType::kYarn, "yarn"},         {RopeType::kDynamic, "dynamic"},
    {RopeType::kLongRope, "longrope"},
};

struct ActivationName {
  Activation activation;
  const char* name;
};
constexpr ActivationName kActivations[] = {
    {Activation::kSilu, "silu"},
    {Activation::kGelu, "gelu"},
    {Activation::kGeluTanh, "gelu_tanh"},
    {Activation::kRelu, "relu"},
};

const char* NameOf(Activation activation) {
  for (const ActivationName& entry : kActivations) {
    if (entry.activation == activation) return entry.name;
  }
  return "";
}

const char* NameOf(RopeType type) {
  for (const RopeTypeName& entry : kRopeTypes) {
    if (entry.type == type) return entry.name;
  }
  return "";
}

// Takes the members of one JSON object, each exactly once and of its exact type; remembers the
// first error.
class MemberReader {
 public:
  MemberReader(const Json& object, std::string prefix)
      : object_(object), prefix_(std::move(prefix)) {
    if (!object.is_object()) Fail("", "not an object");
  }

  void Read(const char* name, std::string* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(name, "not a string");
    *out = value->get_ref<const std::string&>();
  }

  void Read(const char* name, bool* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fail(name, "not true or false");
    *out = value->get<bool>();
  }

  void Read(const char* name, int64_t* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
    if (!fits) return Fail(name, "not a 64-bit integer");
    *out = value->get<int64_t>();
  }

  void Read(const char* name, double* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    if (!value->is_number()) return Fail(name, "not a number");
    *out = value->get<double>();
  }

  void Read(const char* name, std::vector<float>* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    if (!value->is_array()) return Fail(name, "not an array");
    for (const Json& element : *value) {
      if (!element.is_number()) return Fail(name, "not an array of numbers");
      out->push_back(static_cast<float>(element.get<double>()));
    }
  }

  void Read(const char* name, std::vector<int64_t>* out) {
    const Json* value = Take(name);
    if (value == nullptr) return;
    if (!value->is_array()) return Fail(name, "not an array");
    for (const Json& element : *value) {
      const bool fits = element.is_number_integer() &&
                        (!element.is_number_unsigned() || element.get<uint64_t>() <= INT64_MAX);
      if (!fits) return Fail(name, "not an array of 64-bit integers");
      out->push_back(element.get<int64_t>());
    }
  }

  // A member that came later than the first files: absent means the default.
  template <typename T>
  void ReadOptional(const char* name, T* out) {
    if (Has(name)) Read(name, out);
  }
  bool Has(const char* name) const { return object_.is_object() && object_.contains(name); }

  const Json* Take(const char* name) {
    if (!status_.ok()) return nullptr;
    const auto found = object_.find(name);
    if (found == object_.end()) {
      Fail(name, "missing");
      return nullptr;
    }
    taken_.insert(name);
    return &*found;
  }

  void Fail(const char* name, const std::string& problem) {
    if (status_.ok()) status_ = Status(ErrorCode::kCorrupt, prefix_ + name + " is " + problem);
  }

  // An unknown member may change what the model is, so it is not ignored. REQUIRES: every known
  // name was read.
  Status Finish() const {
    if (!status_.ok() || taken_.size() == object_.size()) return status_;
    for (const auto& [name, value] : object_.items()) {
      if (!taken_.contains(name)) {
        return {ErrorCode::kUnsupported, "unknown member " + Quoted(prefix_ + name)};
      }
    }
    return {};
  }

 private:
  const Json& object_;
  std::string prefix_;
  std::set<std::string, std::less<>> taken_;
  Status status_;
};

// A member that the first files do not have is written only if it says something, so that programs
// of that time read every model they can run, and refuse the others by the member's name.
template <typename T>
void PutUnlessDefault(const char* name, const T& value, const T& fallback, Json* json) {
  if (value != fallback) (*json)[name] = value;
}

Json ToJsonValue(const RopeConfig& rope) {
  Json json = {
      {"type", NameOf(rope.type)},
      {"theta", rope.theta},
      {"dim", rope.dim},
      {"factor", rope.factor},
      {"original_context", rope.original_context},
      {"low_freq_factor", rope.low_freq_factor},
      {"high_freq_factor", rope.high_freq_factor},
      {"beta_fast", rope.beta_fast},
      {"beta_slow", rope.beta_slow},
      {"attention_factor", rope.attention_factor},
      {"truncate", rope.truncate},
      {"frequency_divisors", rope.frequency_divisors},
  };
  PutUnlessDefault("short_divisors", rope.short_divisors, {}, &json);
  PutUnlessDefault("long_divisors", rope.long_divisors, {}, &json);
  return json;
}

Json ToJsonValue(const ModelConfig& config) {
  Json json = {
      {"architecture", config.architecture},
      {"name", config.name},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"num_layers", config.num_layers},
      {"num_heads", config.num_heads},
      {"num_kv_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"intermediate_size", config.intermediate_size},
      {"context_length", config.context_length},
      {"norm_eps", config.norm_eps},
      {"activation", NameOf(config.activation)},
      {"attention_bias", config.attention_bias},
      {"attention_output_bias", config.attention_output_bias},
      {"mlp_bias", config.mlp_bias},
      {"tie_embeddings", config.tie_embeddings},
      {"rope", ToJsonValue(config.rope)},
  };
  const ModelConfig fallback;
  PutUnlessDefault("layer_windows", config.layer_windows, fallback.layer_windows, &json);
  PutUnlessDefault("rotating_layers", config.rotating_layers, fallback.rotating_layers, &json);
  if (config.local_rope) json["local_rope"] = ToJsonValue(*config.local_rope);
  PutUnlessDefault("attention_scale", config.attention_scale, fallback.attention_scale, &json);
  PutUnlessDefault("attention_softcap", config.attention_softcap, fallback.attention_softcap,
                   &json);
  PutUnlessDefault("logit_softcap", config.logit_softcap, fallback.logit_softcap, &json);
  PutUnlessDefault("embedding_scale", config.embedding_scale, fallback.embedding_scale, &json);
  PutUnlessDefault("parallel_blocks", config.parallel_blocks, fallback.parallel_blocks, &json);
  PutUnlessDefault("separate_ffn_norm", config.separate_ffn_norm, fallback.separate_ffn_norm,
                   &json);
  PutUnlessDefault("alibi_bias_max", config.alibi_bias_max, fallback.alibi_bias_max, &json);
  PutUnlessDefault("alibi_in_bf16", config.alibi_in_bf16, fallback.alibi_in_bf16, &json);
  PutUnlessDefault("post_norm", config.post_norm, fallback.post_norm, &json);
  PutUnlessDefault("final_norm", config.final_norm, fallback.final_norm, &json);
  PutUnlessDefault("embedding_size", config.embedding_size, fallback.embedding_size, &json);
  return json;
}

Status ReadRope(const Json& json, const std::string& prefix, RopeConfig* rope) {
  MemberReader reader(json, prefix);
  std::string type;
  reader.Read("type", &type);
  reader.Read("theta", &rope->theta);
  reader.Read("dim", &rope->dim);
  reader.Read("factor", &rope->factor);
  reader.Read("original_context", &rope->original_context);
  reader.Read("low_freq_factor", &rope->low_freq_factor);
  reader.Read("high_freq_factor", &rope->high_freq_factor);
  reader.Read("beta_fast", &rope->beta_fast);
  reader.Read("beta_slow", &rope->beta_slow);
  reader.Read("attention_factor", &rope->attention_factor);
  reader.Read("truncate", &rope->truncate);
  reader.Read("frequency_divisors", &rope->frequency_divisors);
  reader.ReadOptional("short_divisors", &rope->short_divisors);
  reader.ReadOptional("long_divisors", &rope->long_divisors);
  if (Status s = reader.Finish(); !s.ok()) return s;
  for (const RopeTypeName& entry : kRopeTypes) {
    if (type != entry.name) continue;
    rope->type = entry.type;
    return {};
  }
  return {ErrorCode::kUnsupported, prefix + "type " + Quoted(type)};
}

Status ReadActivation(const std::string& name, Activation* activation) {
  for (const ActivationName& entry : kActivations) {
    if (name != entry.name) continue;
    *activation = entry.activation;
    return {};
  }
  return {ErrorCode::kUnsupported, "activation " + Quoted(name)};
}

}  // namespace

Status ModelConfig::Validate() const {
  if (architecture.empty()) return {ErrorCode::kCorrupt, "architecture is empty"};
  Status sizes = FirstError({
      CheckSize("vocab_size", vocab_size, kMaxCount),
      CheckSize("hidden_size", hidden_size, kMaxSize),
      CheckSize("num_layers", num_layers, kMaxLayers),
      CheckSize("num_heads", num_heads, kMaxSize),
      CheckSize("num_kv_heads", num_kv_heads, kMaxSize),
      CheckSize("head_dim", head_dim, kMaxSize),
      CheckSize("intermediate_size", intermediate_size, kMaxSize),
      CheckSize("context_length", context_length, kMaxCount),
      CheckNumber("norm_eps", norm_eps, 0, 1),
  });
  if (!sizes.ok()) return sizes;
  if (num_heads % num_kv_heads != 0) {
    return {ErrorCode::kCorrupt, fmt::format("num_heads is {}, not a multiple of num_kv_heads {}",
                                             num_heads, num_kv_heads)};
  }
  if (num_heads * head_dim > kMaxSize) {
    return {ErrorCode::kCorrupt, fmt::format("num_heads {} times head_dim {} is above {}",
                                             num_heads, head_dim, kMaxSize)};
  }
  for (const auto& [field, values] : {std::pair{"layer_windows", &layer_windows},
                                      std::pair{"rotating_layers", &rotating_layers}}) {
    if (values->empty() || values->size() == static_cast<uint64_t>(num_layers)) continue;
    return {ErrorCode::kCorrupt,
            fmt::format("{} has {} values, num_layers is {}", field, values->size(), num_layers)};
  }
  for (const int64_t window : layer_windows) {
    if (window < 0) return OutOfRange("layer_windows", std::to_string(window), "0 or more");
  }
  for (const int64_t rotates : rotating_layers) {
    if (rotates != 0 && rotates != 1) {
      return OutOfRange("rotating_layers", std::to_string(rotates), "0 or 1");
    }
  }
  Status numbers = FirstError({
      CheckNumber("attention_scale", attention_scale, 0, 1e6),
      CheckNumber("attention_softcap", attention_softcap, 0, 1e6),
      CheckNumber("logit_softcap", logit_softcap, 0, 1e6),
      CheckNumber("embedding_scale", embedding_scale, 1e-6, 1e6),
      CheckNumber("alibi_bias_max", alibi_bias_max, 0, 100),
      embedding_size == 0 ? Status() : CheckSize("embedding_size", embedding_size, kMaxSize),
      ValidateRope(rope, head_dim),
  });
  if (!numbers.ok()) return numbers;
  if (post_norm && parallel_blocks) {
    return {ErrorCode::kCorrupt, "post_norm does not go with parallel_blocks"};
  }
  if (!local_rope) return {};
  return ValidateRope(*local_rope, head_dim).WithContext("local_rope");
}

std::string ModelConfig::ToJson() const {
  // A name from a file may be invalid UTF-8.
  return ToJsonValue(*this).dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<ModelConfig> ModelConfig::FromJson(std::string_view json) {
  Result<Json> parsed = ParseStrictJson(json);
  if (!parsed.ok()) return parsed.status().WithContext("model configuration");
  ModelConfig config;
  MemberReader reader(*parsed, "");
  std::string activation;
  reader.Read("architecture", &config.architecture);
  reader.Read("name", &config.name);
  reader.Read("vocab_size", &config.vocab_size);
  reader.Read("hidden_size", &config.hidden_size);
  reader.Read("num_layers", &config.num_layers);
  reader.Read("num_heads", &config.num_heads);
  reader.Read("num_kv_heads", &config.num_kv_heads);
  reader.Read("head_dim", &config.head_dim);
  reader.Read("intermediate_size", &config.intermediate_size);
  reader.Read("context_length", &config.context_length);
  reader.Read("norm_eps", &config.norm_eps);
  reader.Read("activation", &activation);
  reader.Read("attention_bias", &config.attention_bias);
  reader.Read("attention_output_bias", &config.attention_output_bias);
  reader.Read("mlp_bias", &config.mlp_bias);
  reader.Read("tie_embeddings", &config.tie_embeddings);
  const Json* rope = reader.Take("rope");
  reader.ReadOptional("layer_windows", &config.layer_windows);
  reader.ReadOptional("rotating_layers", &config.rotating_layers);
  const Json* local_rope = reader.Has("local_rope") ? reader.Take("local_rope") : nullptr;
  if (local_rope != nullptr) config.local_rope.emplace();
  reader.ReadOptional("attention_scale", &config.attention_scale);
  reader.ReadOptional("attention_softcap", &config.attention_softcap);
  reader.ReadOptional("logit_softcap", &config.logit_softcap);
  reader.ReadOptional("embedding_scale", &config.embedding_scale);
  reader.ReadOptional("parallel_blocks", &config.parallel_blocks);
  reader.ReadOptional("separate_ffn_norm", &config.separate_ffn_norm);
  reader.ReadOptional("alibi_bias_max", &config.alibi_bias_max);
  reader.ReadOptional("alibi_in_bf16", &config.alibi_in_bf16);
  reader.ReadOptional("post_norm", &config.post_norm);
  reader.ReadOptional("final_norm", &config.final_norm);
  reader.ReadOptional("embedding_size", &config.embedding_size);
  Status s = reader.Finish();
  if (s.ok()) s = ReadRope(*rope, "rope.", &config.rope);
  if (s.ok() && local_rope != nullptr)
    s = ReadRope(*local_rope, "local_rope.", &*config.local_rope);
  if (s.ok()) s = ReadActivation(activation, &config.activation);
  if (s.ok()) s = config.Validate();
  if (!s.ok()) return s.WithContext("model configuration");
  return config;
}

}  // namespace sluice
