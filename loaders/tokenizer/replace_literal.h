#ifndef SLUICE_LOADERS_TOKENIZER_REPLACE_LITERAL_H_
#define SLUICE_LOADERS_TOKENIZER_REPLACE_LITERAL_H_

#include <string>
#include <string_view>

namespace sluice {

// `text` with each `pattern` (not empty) replaced, from left to right without overlap.
std::string ReplaceLiteral(std::string_view text, std::string_view pattern,
                           std::string_view content);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_REPLACE_LITERAL_H_
