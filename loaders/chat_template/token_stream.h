// A cursor over tokens that keeps the first error and then stands at the end for good. It also
// counts what is made of them.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loaders/chat_template/lexer.h"

namespace sluice::chat_template {

// What an element of a vector takes while the vector grows: the old and the new block.
inline constexpr size_t kListFactor = 3;

class TokenStream {
 public:
  // `max_tree_bytes`: what Charge allows.
  TokenStream(std::string_view source, size_t max_tree_bytes)
      : lexer_(source), tree_bytes_left_(max_tree_bytes) {
    Advance();
    Advance();
  }

  const Token& current() const { return current_; }
  const Token& next() const { return next_; }
  int line() const { return current().line; }
  bool AtEnd() const { return current().kind == TokenKind::kEnd; }
  bool Is(TokenKind kind) const { return current().kind == kind; }
  bool IsName(std::string_view name) const {
    return Is(TokenKind::kName) && current().text == name;
  }
  bool IsOperator(std::string_view op) const {
    return Is(TokenKind::kOperator) && current().text == op;
  }

  // Returns the current token and moves on.
  Token Take() {
    if (AtEnd()) return current_;
    Token token = std::move(current_);
    Advance();
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
    current_ = Token();
    current_.line = line;
    next_ = current_;
  }
  // Memory of the syntax tree; fails when the source has not that much coming.
  void Charge(size_t bytes) {
    if (bytes > tree_bytes_left_) {
      Fail(ErrorCode::kLimitExceeded, "too many expressions for the size of the template");
    }
    tree_bytes_left_ -= std::min(bytes, tree_bytes_left_);
  }
  // A list that was charged for kListFactor times its elements, as it takes while it grows, is
  // complete.
  template <typename T>
  void Complete(std::vector<T>* list) {
    list->shrink_to_fit();
    tree_bytes_left_ += (kListFactor - 1) * list->size() * sizeof(T);
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

  void Advance() {
    if (failed()) return;
    current_ = std::move(next_);
    next_ = lexer_.Next();
    if (!lexer_.status().ok()) status_ = lexer_.status();
    if (!failed()) return;
    current_ = Token();
    next_ = Token();
  }

  Lexer lexer_;
  Token current_, next_;
  size_t tree_bytes_left_;
  Status status_;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_TOKEN_STREAM_H_
