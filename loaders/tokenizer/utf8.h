// UTF-8 as text arrives: decoding one character at a time, and the repair of ill-formed bytes.
// "Ill-formed" follows the Unicode Standard, section 3.9 (Table 3-7); each maximal ill-formed
// subpart becomes one U+FFFD, as in Python's errors="replace" and Rust's from_utf8_lossy.
#ifndef SLUICE_LOADERS_TOKENIZER_UTF8_H_
#define SLUICE_LOADERS_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Step {
  char32_t code = 0;  // the character, or U+FFFD
  size_t length = 0;  // bytes it takes; for ill-formed bytes those of the maximal subpart
  bool valid = false;
  bool truncated = false;  // ill-formed only because the text ends here; more bytes could cure it
};

// REQUIRES: at < text.size().
Utf8Step DecodeUtf8(std::string_view text, size_t at);

bool IsValidUtf8(std::string_view text);

// Appends `text` with each maximal ill-formed subpart replaced by U+FFFD.
void AppendRepairedUtf8(std::string_view text, std::string* out);

// Appends the encoding of `code`, a Unicode scalar value.
void AppendUtf8(char32_t code, std::string* out);

// For text known to be valid: the character at `at`, and the one that ends at `end` (> 0).
char32_t Utf8At(std::string_view valid_text, size_t at, size_t* length);
char32_t Utf8Before(std::string_view valid_text, size_t end, size_t* length);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_UTF8_H_
