// From the source of a template to tokens, as jinja2 cuts it with trim_blocks and lstrip_blocks.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_LEXER_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

namespace sluice::chat_template {

enum class TokenKind : uint8_t {
  kData,           // text between tags
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  // text is the operator itself
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;  // of kData, kName, kString (decoded) and kOperator
  int64_t integer = 0;
  double number = 0;
};

// Returns the tokens; the last is kEnd. Comments and white space are gone, raw blocks are data.
Result<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_LEXER_H_
