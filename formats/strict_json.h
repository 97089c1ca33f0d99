// JSON from files that nobody vouches for: a bounded parser in front of nlohmann's values.
#ifndef SLUICE_FORMATS_STRICT_JSON_H_
#define SLUICE_FORMATS_STRICT_JSON_H_

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "formats/status.h"

namespace sluice {

// Parses one JSON text (RFC 8259, UTF-8). Beyond the grammar it refuses an object with the same key
// twice (kCorrupt), nesting deeper than `max_depth`, more values than `max_values`, and a tree that
// would take more than 16 times the size of the text and 64 KiB (kLimitExceeded): small values by
// the thousand, which files of settings do not have.
Result<nlohmann::json> ParseStrictJson(std::string_view text, size_t max_depth = 32,
                                       size_t max_values = 8'000'000);

}  // namespace sluice

#endif  // SLUICE_FORMATS_STRICT_JSON_H_
