#include <fmt/core.h>

#include "loaders/tokenizer/regex_elements.h"
#include "loaders/tokenizer/regex_sets.h"

namespace sluice {
namespace {

RegexElement SetElement(std::string_view set, bool negated) {
  return RegexElement{true, 0, std::string(set), negated};
}

// Up to `most` digits of a number.
char32_t Digits(RegexCursor* cursor, int base, int most) {
  char32_t value = 0;
  for (int i = 0; i < most && cursor->at < cursor->in.size(); ++i) {
    const char c = cursor->Peek();
    int digit = 99;
    if (c >= '0' && c <= '9') digit = c - '0';
    if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    if (digit >= base) break;
    value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
    ++cursor->at;
  }
  return value;
}

Result<RegexElement> HexEscape(RegexCursor* cursor, bool four) {
  const bool braces = !four && cursor->Peek() == '{';
  if (braces) ++cursor->at;
  const size_t begin = cursor->at;
  const char32_t code = Digits(cursor, 16, four ? 4 : braces ? 8 : 2);
  const size_t count = cursor->at - begin;
  if (braces && cursor->Peek() != '}') return MalformedRegex("\\x{ without }");
  if (braces) ++cursor->at;
  if (count == 0 || (four && count != 4))
    return MalformedRegex("hexadecimal escape without digits");
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
    return MalformedRegex("no such character");
  if (!four && !braces && code > 0x7F) return UnsupportedRegex("\\x of a byte above 7f");
  return RegexElement{false, code, "", false};
}

Result<RegexElement> Property(RegexCursor* cursor, bool negated) {
  if (cursor->Peek() != '{') return UnsupportedRegex("\\p without braces");
  const size_t end = cursor->in.find('}', cursor->at);
  if (end == std::string_view::npos) return MalformedRegex("\\p{ without }");
  std::string_view name = cursor->in.substr(cursor->at + 1, end - cursor->at - 1);
  cursor->at = end + 1;
  if (name.starts_with('^')) {
    negated = !negated;
    name.remove_prefix(1);
  }
  Result<std::string> set = RegexSetOfName(name, false);
  if (!set.ok()) return set.status();
  return SetElement(*set, negated);
}

}  // namespace

Result<RegexElement> ReadRegexEscape(RegexCursor* cursor) {
  if (cursor->at >= cursor->in.size()) return MalformedRegex("\\ at the end");
  const char32_t c = cursor->Take();
  constexpr std::string_view kControls = "nrtfvae";
  constexpr std::string_view kControlCodes = "\n\r\t\f\v\a\x1b";
  if (c < 0x80 && kControls.find(static_cast<char>(c)) != std::string_view::npos) {
    return RegexElement{false,
                        static_cast<char32_t>(kControlCodes[kControls.find(static_cast<char>(c))]),
                        "", false};
  }
  switch (c) {
    case 's':
      return SetElement(kRegexSpace, false);
    case 'S':
      return SetElement(kRegexNotSpace, false);
    case 'd':
      return SetElement(R"(\p{Nd})", false);
    case 'D':
      return SetElement(R"(\P{Nd})", false);
    case 'w':
    case 'W':
      return SetElement(kRegexWord, c == 'W');
    case 'h':
    case 'H':
      return SetElement(kRegexHex, c == 'H');
    case 'p':
    case 'P':
      return Property(cursor, c == 'P');
    case 'x':
    case 'u':
      return HexEscape(cursor, c == 'u');
    case '0':
      return RegexElement{false, Digits(cursor, 8, 2), "", false};
    default:
      break;
  }
  if (IsAsciiAlnum(c)) return UnsupportedRegex(fmt::format("escape \\{}", static_cast<char>(c)));
  return RegexElement{false, c, "", false};
}

}  // namespace sluice
