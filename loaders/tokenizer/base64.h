// RFC 4648, section 4, as JSON carries binary data.
#ifndef SLUICE_LOADERS_TOKENIZER_BASE64_H_
#define SLUICE_LOADERS_TOKENIZER_BASE64_H_

#include <optional>
#include <string>
#include <string_view>

namespace sluice {

std::string EncodeBase64(std::string_view bytes);

// nullopt if a character is not of the alphabet or the padding is wrong.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_BASE64_H_
