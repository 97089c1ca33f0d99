#include "loaders/hf_config.h"

#include <fmt/format.h>

#include <string>

#include "formats/quote.h"
#include "formats/strict_json.h"
#include "loaders/hf_architectures.h"
#include "loaders/hf_fields.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

std::string KnownClasses() {
  std::string names;
  for (const HuggingFaceArchitecture& architecture : HuggingFaceArchitectures()) {
    names += (names.empty() ? "" : ", ") + std::string(architecture.class_name);
  }
  return names;
}

// By model_type and the class of the model; one of the two may be missing.
Result<const HuggingFaceArchitecture*> FindArchitecture(const Json& config) {
  FieldReader fields(config, "");
  const std::string type = fields.String("model_type", "");
  if (!fields.status().ok()) return fields.status();
  std::string class_name;
  if (const Json* names = fields.Find("architectures"); names != nullptr) {
    if (!names->is_array() || names->empty() || !names->front().is_string()) {
      return Status(ErrorCode::kCorrupt, "architectures is not a list of names");
    }
    class_name = names->front().get<std::string>();
  }
  if (class_name.empty() && type.empty()) {
    return Status(ErrorCode::kCorrupt, "neither architectures nor model_type is there");
  }
  for (const HuggingFaceArchitecture& architecture : HuggingFaceArchitectures()) {
    if (!type.empty() && type != architecture.model_type) continue;
    if (!class_name.empty() && class_name != architecture.class_name) continue;
    return &architecture;
  }
  return Status(
      ErrorCode::kUnsupported,
      fmt::format("architecture {} (model_type {}) is not supported; supported: {}",
                  Quoted(class_name.empty() ? type : class_name), Quoted(type), KnownClasses()));
}

Status RefuseQuantized(const Json& config) {
  FieldReader fields(config, "");
  const Json* quantization = fields.Find("quantization_config");
  if (quantization == nullptr) return {};
  const Json method = quantization->is_object()
                          ? quantization->value("quant_method", Json("unnamed"))
                          : Json("unnamed");
  return {ErrorCode::kUnsupported,
          "a quantized checkpoint (quantization_config, quant_method " +
              Quoted(method.is_string() ? method.get<std::string>() : "unnamed") + ")"};
}

}  // namespace

Result<ModelConfig> ModelConfigFromHuggingFace(std::string_view config_json) {
  Result<Json> json = ParseStrictJson(config_json);
  if (!json.ok()) return json.status();
  if (!json->is_object()) return Status(ErrorCode::kCorrupt, "not a JSON object");
  Result<const HuggingFaceArchitecture*> architecture = FindArchitecture(*json);
  if (!architecture.ok()) return architecture.status();
  if (Status s = RefuseQuantized(*json); !s.ok()) return s;
  ModelConfig config;
  config.architecture = (*architecture)->architecture;
  if (Status s = (*architecture)->read(*json, &config); !s.ok()) return s;
  if (Status s = config.Validate(); !s.ok()) return s;
  return config;
}

}  // namespace sluice
