#include "tools/token_lines.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "formats/quote.h"

namespace sluice {

Result<std::vector<int32_t>> ParseTokens(std::string_view text) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  std::vector<int32_t> ids;
  for (size_t begin = text.find_first_not_of(kBetween); begin != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, begin), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0) {
      return Status(ErrorCode::kInvalidArgument,
                    Quoted(text.substr(begin, end - begin)) + " is no token id");
    }
    ids.push_back(id);
    begin = text.find_first_not_of(kBetween, end);
  }
  return ids;
}

Result<std::vector<std::vector<int32_t>>> ParseTokenLines(std::string_view text) {
  std::vector<std::vector<int32_t>> lines;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    Result<std::vector<int32_t>> ids = ParseTokens(text.substr(0, end));
    if (!ids.ok()) return ids.status().WithContext(fmt::format("line {}", number));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (ids->empty()) continue;
    if (!lines.empty() && lines[0].size() != ids->size()) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("line {} has {} tokens, the first has {}", number, ids->size(),
                                lines[0].size()));
    }
    lines.push_back(std::move(*ids));
  }
  if (lines.empty()) return Status(ErrorCode::kInvalidArgument, "no token ids");
  return lines;
}

std::string FormatTokens(const std::vector<int32_t>& ids) {
  return fmt::format("{}", fmt::join(ids, " "));
}

}  // namespace sluice
