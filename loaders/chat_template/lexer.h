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

// Cuts a source as it is read, so that no list of tokens takes many times its size. Comments and
// white space are gone, raw blocks are data.
class Lexer {
 public:
  explicit Lexer(std::string_view source);

  // The next token; at the end of the source, and after an error, kEnd for good.
  Token Next();
  const Status& status() const { return status_; }

 private:
  bool At(std::string_view text) const;
  void Fail(ErrorCode code, const std::string& message);
  void Fail(const std::string& message) { Fail(ErrorCode::kInvalidArgument, message); }
  void AdvanceTo(size_t position);
  size_t SkipSpace(size_t position) const;
  Token& Push(TokenKind kind, std::string text = {});
  void PushData(std::string_view text);
  std::string_view BeforeTag(std::string_view text, char sign, bool is_variable) const;
  char SignAt(size_t position) const;
  size_t FindTag(size_t position) const;
  void LexRoot();
  void LexComment();
  void FinishTag(size_t behind, char sign, bool trims_newline);
  bool SkipRawBegin();
  void LexRaw();
  void LexInTag();
  void LexToken();
  void LexString();
  size_t SkipDigits(size_t position) const;
  bool DigitAt(size_t position) const;
  size_t SkipFraction(size_t position) const;
  void LexNumber();
  void LexBasedInteger(int base);
  void LexOperator();

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was matched before ended a line
  bool in_tag_ = false;
  bool in_variable_ = false;    // the tag is {{ and not {%
  std::string open_brackets_;   // of the tag: what closes them
  std::vector<Token> pending_;  // of one step of the cut, at most two
  size_t taken_ = 0;            // of them
  Status status_;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_LEXER_H_
