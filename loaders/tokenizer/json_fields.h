// Fields of untrusted JSON, with the type that is expected or an error that names them.
#ifndef SLUICE_LOADERS_TOKENIZER_JSON_FIELDS_H_
#define SLUICE_LOADERS_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "formats/json_tree.h"
#include "formats/status.h"

namespace sluice {

// kCorrupt unless `text` is one JSON object without repeated names. `what` names the document in
// errors.
Result<JsonDocument> ParseJsonObject(std::string_view text, std::string_view what);

// The member `key` of `object`, or nullptr if it is absent or null, or `object` is no object.
const JsonValue* FindMember(const JsonValue& object, std::string_view key);

// A flag or a string; `fallback` where it is absent or null. kCorrupt if it has another type.
Status ReadFlag(const JsonValue& object, std::string_view key, bool fallback, bool* value);
Status ReadString(const JsonValue& object, std::string_view key, std::string* value);

// A whole number in [0, 2^31), or nullopt.
std::optional<int32_t> AsTokenId(const JsonValue& value);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_JSON_FIELDS_H_
