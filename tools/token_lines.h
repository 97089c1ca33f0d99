// Token ids as text.
#ifndef SLUICE_TOOLS_TOKEN_LINES_H_
#define SLUICE_TOOLS_TOKEN_LINES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

namespace sluice {

// Ids between spaces, commas, brackets or newlines. Error: kInvalidArgument that names the word
// which is no whole number from 0 to 2^31 - 1.
Result<std::vector<int32_t>> ParseTokens(std::string_view text);

// One sequence for each line that is not blank. Errors: kInvalidArgument (as above, no lines, lines
// of different lengths).
Result<std::vector<std::vector<int32_t>>> ParseTokenLines(std::string_view text);

// "1 2 3", without a newline.
std::string FormatTokens(const std::vector<int32_t>& ids);

}  // namespace sluice

#endif  // SLUICE_TOOLS_TOKEN_LINES_H_
