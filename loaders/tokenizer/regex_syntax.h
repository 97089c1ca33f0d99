// Translates a regular expression from Oniguruma's Ruby syntax, which Hugging Face `tokenizers`
// uses, to PCRE2's, where the two differ: \s \w \h \v \b \u, POSIX brackets, names of properties
// and scripts, nested classes and intersections ([a&&[^b]]), {,n}, {n}?, {n,m}+ (no possessive
// interval), (?m). The result is meant for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE with newline LF.
// Reference: Oniguruma's doc/RE; pcre2pattern(3).
#ifndef SLUICE_LOADERS_TOKENIZER_REGEX_SYNTAX_H_
#define SLUICE_LOADERS_TOKENIZER_REGEX_SYNTAX_H_

#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice {

// kUnsupported names what cannot be translated; kCorrupt an expression that no engine would accept.
Result<std::string> TranslateOniguruma(std::string_view pattern);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_REGEX_SYNTAX_H_
