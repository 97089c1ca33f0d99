// Character classes and normalization forms of Unicode 15 (utf8proc 2.8), as the tokenizers need
// them. Characters assigned after Unicode 15 count as unassigned. Normalization is that of Unicode
// 9, as in `tokenizers`: to it, characters added later neither combine nor decompose.
#ifndef SLUICE_LOADERS_TOKENIZER_UNICODE_H_
#define SLUICE_LOADERS_TOKENIZER_UNICODE_H_

#include <string>
#include <string_view>

namespace sluice {

bool IsWhiteSpace(char32_t code);     // the property White_Space (25 characters)
bool IsNumeric(char32_t code);        // general categories Nd, Nl, No
bool IsPunctuation(char32_t code);    // general categories P*, and all ASCII punctuation
bool IsAccent(char32_t code);         // general categories Mn, Mc, Me of Unicode 9
bool IsWordCharacter(char32_t code);  // Alphabetic, M*, Nd, Pc, Join_Control (UTS #18 \w)

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

// UAX #15. REQUIRES: `text` is valid UTF-8. Time O(n log n), also for long runs of combining marks.
std::string NormalizeUnicode(std::string_view text, NormalizationForm form);

// Each character by itself, without context: U+0130 gives two characters, a final sigma stays.
std::string LowercaseUnicode(std::string_view text);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_UNICODE_H_
