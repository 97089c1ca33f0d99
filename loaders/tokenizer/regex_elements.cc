#include "loaders/tokenizer/regex_elements.h"

#include <fmt/core.h>

#include <array>
#include <cstdio>
#include <utility>

#include "loaders/tokenizer/regex_sets.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

struct NamedSet {
  std::string_view name;  // lower case, without spaces, '_' and '-'
  std::string_view set;
};

// Names of [[:name:]] and \p{name} that are neither one- or two-letter categories nor scripts.
constexpr auto kNamedSets = std::to_array<NamedSet>({
    {"alpha", R"(\p{Alphabetic})"},
    {"alphabetic", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"ascii", R"(\x{00}-\x{7f})"},
    {"blank", R"(\p{Zs}\x{09})"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", R"(\p{Nd})"},
    {"lower", R"(\p{Lowercase})"},
    {"lowercase", R"(\p{Lowercase})"},
    {"upper", R"(\p{Uppercase})"},
    {"uppercase", R"(\p{Uppercase})"},
    {"space", kRegexSpace},
    {"whitespace", kRegexSpace},
    {"word", kRegexPosixWord},
    {"xdigit", kRegexHex},
    {"any", R"(\x{00}-\x{10ffff})"},
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"other", R"(\p{C})"},
    {"emoji", R"(\p{Emoji})"},
    {"emojipresentation", R"(\p{Emoji_Presentation})"},
    {"extendedpictographic", R"(\p{Extended_Pictographic})"},
});

constexpr std::string_view kCategories =
    " c cc cf cn co cs l ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk sm so "
    "z zl zp zs ";

std::string Hex(char32_t code) {
  char buffer[24];
  std::snprintf(buffer, sizeof(buffer), "\\x{%x}", static_cast<unsigned>(code));
  return buffer;
}

}  // namespace

Status UnsupportedRegex(std::string what) {
  return Status(ErrorCode::kUnsupported, "regular expression: " + std::move(what));
}
Status MalformedRegex(std::string what) {
  return Status(ErrorCode::kCorrupt, "regular expression: " + std::move(what));
}

bool IsAsciiAlnum(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// A character as itself, inside or outside a class.
std::string RegexLiteral(char32_t code) {
  if (code < 0x80 && !IsAsciiAlnum(code)) return Hex(code);
  std::string text;
  AppendUtf8(code, &text);
  return text;
}

std::string_view RegexWordSet() { return kRegexWord; }

char32_t RegexCursor::Take() {
  size_t length = 0;
  const char32_t code = Utf8At(in, at, &length);
  at += length;
  return code;
}

Result<std::string> RegexSetOfName(std::string_view name, bool posix) {
  std::string key;
  for (const char c : name) {
    if (c == ' ' || c == '_' || c == '-') continue;
    if (!IsAsciiAlnum(static_cast<unsigned char>(c))) return MalformedRegex("name of a property");
    key.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
  }
  // The bracket has the symbols too, the property does not.
  if (key == "punct") return std::string(posix ? R"(\p{P}\p{S})" : R"(\p{P})");
  for (const NamedSet& entry : kNamedSets) {
    if (entry.name == key) return std::string(entry.set);
  }
  if (posix || key.empty()) return UnsupportedRegex(fmt::format("[[:{}:]]", name));
  if (kCategories.find(fmt::format(" {} ", key)) != std::string_view::npos) {
    key[0] = static_cast<char>(key[0] - 'a' + 'A');
    return fmt::format("\\p{{{}}}", key);
  }
  // Oniguruma means the property Script; a bare name in PCRE2 would mean Script_Extensions.
  return fmt::format("\\p{{sc:{}}}", name);
}

}  // namespace sluice
