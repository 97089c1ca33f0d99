// From tokens to the syntax tree.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_PARSER_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_PARSER_H_

#include <string_view>

#include "formats/status.h"
#include "loaders/chat_template/ast.h"

namespace sluice::chat_template {

// Blocks, parentheses and other constructs that lie in one another.
inline constexpr int kMaxParseNesting = 64;
// Levels of one expression, whose chains (a + b + c, x.y.z) count as well.
inline constexpr int kMaxExprDepth = 192;

// Parses a whole template.
Result<Body> ParseTemplate(std::string_view source);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_PARSER_H_
