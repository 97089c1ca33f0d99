// The characters and sets of characters of Oniguruma's syntax, as PCRE2 writes them. Private to the
// translation of expressions (regex_syntax.h).
#ifndef SLUICE_LOADERS_TOKENIZER_REGEX_ELEMENTS_H_
#define SLUICE_LOADERS_TOKENIZER_REGEX_ELEMENTS_H_

#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice {

inline constexpr int kMaxRegexNesting = 64;

Status UnsupportedRegex(std::string what);
Status MalformedRegex(std::string what);

bool IsAsciiAlnum(char32_t c);

// A character as itself, inside or outside a class.
std::string RegexLiteral(char32_t code);

// What \w stands for, inside of [].
std::string_view RegexWordSet();

// A place in an expression, which is valid UTF-8.
struct RegexCursor {
  std::string_view in;
  size_t at = 0;

  bool Looking(std::string_view text) const { return in.substr(at).starts_with(text); }
  char Peek() const { return at < in.size() ? in[at] : '\0'; }
  char32_t Take();  // REQUIRES: at < in.size()
};

// One element of the syntax that may stand in a class: a character, or a set of characters.
struct RegexElement {
  bool is_set = false;
  char32_t code = 0;
  std::string set;       // items of a class, if is_set
  bool negated = false;  // the set is everything but `set`
};

// The set that [[:name:]] (posix) or \p{name} means.
Result<std::string> RegexSetOfName(std::string_view name, bool posix);

// What follows a backslash and means the same inside and outside a class.
Result<RegexElement> ReadRegexEscape(RegexCursor* cursor);

// A class after its "[": an expression that matches one character.
Result<std::string> ReadRegexClass(RegexCursor* cursor);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_REGEX_ELEMENTS_H_
