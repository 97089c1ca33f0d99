// A cursor over tokens that keeps the first error and then stands at the end for good.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loaders/chat_template/lexer.h"

namespace sluice::chat_template {

class TokenStream {
 public:
  // REQUIRES: the last token is kEnd.
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const {
    return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_];
  }
  int line() const { return current().line; }
  bool AtEnd() const { return current().kind == TokenKind::kEnd; }
  bool Is(TokenKind kind) const { return current().kind == kind; }
  bool IsName(std::string_view name) const {
    return Is(TokenKind::kName) && current().text == name;
  }
  bool IsOperator(std::string_view op) const {
    return Is(TokenKind::kOperator) && current().text == op;
  }

  // Returns the current token and moves on. The reference stays valid.
  const Token& Take() {
    const Token& token = current();
    if (!AtEnd()) ++position_;
    return token;
  }
  bool SkipName(std::string_view name) { return IsName(name) && (Take(), true); }
  bool SkipOperator(std::string_view op) { return IsOperator(op) && (Take(), true); }

  void Expect(TokenKind kind, std::string_view what) {
    if (!Is(kind)) return FailExpected(what);
    Take();
  }
  void ExpectOperator(std::string_view op) {
    if (!SkipOperator(op)) FailExpected(fmt::format("'{}'", op));
  }
  std::string ExpectName() {
    if (!Is(TokenKind::kName)) {
      FailExpected("a name");
      return {};
    }
    return Take().text;
  }

  void Fail(ErrorCode code, const std::string& message) { FailAt(line(), code, message); }
  void FailAt(int line, ErrorCode code, const std::string& message) {
    if (status_.ok()) status_ = Status(code, fmt::format("line {}: {}", line, message));
    position_ = tokens_.size() - 1;
  }
  void FailExpected(std::string_view what) {
    const std::string found = AtEnd() ? "the end of the template" : fmt::format("'{}'", Describe());
    Fail(ErrorCode::kInvalidArgument, fmt::format("expected {}, found {}", what, found));
  }

  bool failed() const { return !status_.ok(); }
  const Status& status() const { return status_; }

 private:
  std::string Describe() const {
    switch (current().kind) {
      case TokenKind::kBlockBegin:
        return "{%";
      case TokenKind::kBlockEnd:
        return "%}";
      case TokenKind::kVariableBegin:
        return "{{";
      case TokenKind::kVariableEnd:
        return "}}";
      default:
        return current().text.substr(0, 40);
    }
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  Status status_;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_
