#include "loaders/tokenizer/json_fields.h"

#include <fmt/core.h>

namespace sluice {

// Nothing here recurses by it.
constexpr size_t kMaxDepth = 256;

Result<JsonDocument> ParseJsonObject(std::string_view text, std::string_view what) {
  Result<JsonDocument> json = ParseJsonTree(text, kMaxDepth);
  if (json.status().message().starts_with("not valid")) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{} is not JSON: {}", what, json.status().message()));
  }
  if (!json.ok()) return json.status().WithContext(std::string(what));
  if (!json->root().is_object()) {
    return Status(ErrorCode::kCorrupt, std::string(what) + " is not a JSON object");
  }
  return json;
}

const JsonValue* FindMember(const JsonValue& object, std::string_view key) {
  const JsonValue* member = object.Find(key);
  return member == nullptr || member->is_null() ? nullptr : member;
}

Status ReadFlag(const JsonValue& object, std::string_view key, bool fallback, bool* value) {
  *value = fallback;
  const JsonValue* member = FindMember(object, key);
  if (member == nullptr) return {};
  if (!member->is_boolean()) {
    return Status(ErrorCode::kCorrupt, fmt::format("'{}' is not true or false", key));
  }
  *value = member->AsBool();
  return {};
}

Status ReadString(const JsonValue& object, std::string_view key, std::string* value) {
  value->clear();
  const JsonValue* member = FindMember(object, key);
  if (member == nullptr) return {};
  if (!member->is_string()) {
    return Status(ErrorCode::kCorrupt, fmt::format("'{}' is not a string", key));
  }
  *value = member->AsString();
  return {};
}

std::optional<int32_t> AsTokenId(const JsonValue& value) {
  if (!value.is_unsigned() || value.AsUint64() > INT32_MAX) return std::nullopt;
  return static_cast<int32_t>(value.AsUint64());
}

}  // namespace sluice
