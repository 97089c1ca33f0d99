#include "loaders/tokenizer/json_fields.h"

#include <fmt/core.h>

namespace sluice {

Result<Json> ParseJsonObject(std::string_view text, std::string_view what) {
  Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return Status(ErrorCode::kCorrupt, std::string(what) + " is not JSON");
  if (!json.is_object()) {
    return Status(ErrorCode::kCorrupt, std::string(what) + " is not a JSON object");
  }
  return json;
}

const Json* FindMember(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto member = object.find(std::string(key));
  return member == object.end() || member->is_null() ? nullptr : &*member;
}

Status ReadFlag(const Json& object, std::string_view key, bool fallback, bool* value) {
  *value = fallback;
  const Json* member = FindMember(object, key);
  if (member == nullptr) return {};
  if (!member->is_boolean()) {
    return Status(ErrorCode::kCorrupt, fmt::format("'{}' is not true or false", key));
  }
  *value = member->get<bool>();
  return {};
}

Status ReadString(const Json& object, std::string_view key, std::string* value) {
  value->clear();
  const Json* member = FindMember(object, key);
  if (member == nullptr) return {};
  if (!member->is_string()) {
    return Status(ErrorCode::kCorrupt, fmt::format("'{}' is not a string", key));
  }
  *value = member->get_ref<const std::string&>();
  return {};
}

std::optional<int32_t> AsTokenId(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto id = value.get<uint64_t>();
    if (id <= INT32_MAX) return static_cast<int32_t>(id);
  }
  return std::nullopt;
}

}  // namespace sluice
