// The text of a string literal of the template language.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_STRING_LITERAL_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_STRING_LITERAL_H_

#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice::chat_template {

// Resolves the escapes of `body`, what stands between the quotes, as Python does.
Result<std::string> DecodeStringLiteral(std::string_view body);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_STRING_LITERAL_H_
