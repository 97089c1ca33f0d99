// Oniguruma's sets of characters where PCRE2's of the same name differ, as what may stand inside
// [].
#ifndef SLUICE_LOADERS_TOKENIZER_REGEX_SETS_H_
#define SLUICE_LOADERS_TOKENIZER_REGEX_SETS_H_

#include <string_view>

namespace sluice {

inline constexpr std::string_view kRegexSpace =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
inline constexpr std::string_view kRegexNotSpace =
    R"(\x{00}-\x{08}\x{0e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
inline constexpr std::string_view kRegexPosixWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Oniguruma's \w has the superscripts and fractions of Latin-1 besides.
inline constexpr std::string_view kRegexWord =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
inline constexpr std::string_view kRegexHex = "0-9A-Fa-f";

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_REGEX_SETS_H_
