#include "loaders/chat_template/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "loaders/chat_template/marked_string.h"
#include "loaders/chat_template/string_literal.h"

namespace sluice::chat_template {
namespace {

constexpr size_t kMaxNameBytes = 256;

bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}
bool IsDecimal(char c) { return c >= '0' && c <= '9'; }
bool IsNameByte(char c) { return IsNameStart(c) || IsDecimal(c); }

// Line ends become \n, and one at the end of the source goes.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  Result<std::vector<Token>> Run() {
    while (status_.ok() && position_ < source_.size()) LexRoot();
    if (!status_.ok()) return status_;
    Push(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  bool At(std::string_view text) const {
    return std::string_view(source_).substr(position_).starts_with(text);
  }

  void Fail(ErrorCode code, const std::string& message) {
    if (status_.ok()) status_ = Status(code, fmt::format("line {}: {}", line_, message));
  }
  void Fail(const std::string& message) { Fail(ErrorCode::kInvalidArgument, message); }

  // Moves to `position`, and counts the lines on the way.
  void AdvanceTo(size_t position) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                         source_.begin() + static_cast<ptrdiff_t>(position), '\n'));
    position_ = position;
  }

  size_t SkipSpace(size_t position) const {
    while (position < source_.size() && IsSpace(CharacterAt(source_, position))) {
      position += CharacterBytes(source_, position);
    }
    return position;
  }

  Token& Push(TokenKind kind, std::string text = {}) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  void PushData(std::string_view text) {
    if (!text.empty()) Push(TokenKind::kData, std::string(text));
  }

  // The text before a tag, without the white space that the tag takes away.
  std::string_view BeforeTag(std::string_view text, char sign, bool is_variable) const {
    if (sign == '-') {
      const MarkedString whole(std::string(text), Origin::kTemplate);
      return text.substr(0, Strip(whole, nullptr, {.left = false, .right = true}).size());
    }
    if (sign == '+' || is_variable) return text;
    const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
    if (line_begin == 0 && !line_starting_) return text;
    for (size_t i = line_begin; i < text.size(); i += CharacterBytes(text, i)) {
      if (!IsSpace(CharacterAt(text, i))) return text;
    }
    return text.substr(0, line_begin);
  }

  // The sign behind an opening tag, or 0.
  char SignAt(size_t position) const {
    if (position >= source_.size()) return 0;
    return source_[position] == '-' || source_[position] == '+' ? source_[position] : 0;
  }

  size_t FindTag(size_t position) const {
    for (;;) {
      position = source_.find('{', position);
      if (position == std::string::npos || position + 1 >= source_.size()) return std::string::npos;
      const char kind = source_[position + 1];
      if (kind == '{' || kind == '%' || kind == '#') return position;
      ++position;
    }
  }

  void LexRoot() {
    const size_t tag = FindTag(position_);
    if (tag == std::string::npos) {
      PushData(std::string_view(source_).substr(position_));
      AdvanceTo(source_.size());
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(tag + 2);
    PushData(
        BeforeTag(std::string_view(source_).substr(position_, tag - position_), sign, kind == '{'));
    AdvanceTo(tag + 2 + (sign != 0));
    line_starting_ = false;
    if (kind == '#') {
      LexComment();
    } else if (kind == '%' && SkipRawBegin()) {
      LexRaw();
    } else {
      LexTag(kind == '{');
    }
  }

  void LexComment() {
    const size_t end = source_.find("#}", position_);
    if (end == std::string::npos) return Fail("a comment has no end");
    const char sign = end > position_ ? SignAt(end - 1) : 0;
    FinishTag(end + 2, sign, /*trims_newline=*/true);
  }

  // Behind a closing tag: takes the white space that belongs to it.
  void FinishTag(size_t behind, char sign, bool trims_newline) {
    size_t next = behind;
    if (sign == '-') {
      next = SkipSpace(behind);
    } else if (sign != '+' && trims_newline && behind < source_.size() && source_[behind] == '\n') {
      ++next;
    }
    AdvanceTo(next);
    line_starting_ = source_[next - 1] == '\n';
  }

  // "raw" and the end of its tag, if that is what stands here.
  bool SkipRawBegin() {
    size_t next = SkipSpace(position_);
    if (!std::string_view(source_).substr(next).starts_with("raw")) return false;
    next = SkipSpace(next + 3);
    const std::string_view rest = std::string_view(source_).substr(next);
    if (rest.starts_with("-%}")) {
      FinishTag(next + 3, '-', false);
    } else if (rest.starts_with("%}")) {
      FinishTag(next + 2, 0, false);
    } else {
      return false;
    }
    return true;
  }

  void LexRaw() {
    for (size_t tag = source_.find("{%", position_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      const char sign = SignAt(tag + 2);
      size_t next = SkipSpace(tag + 2 + (sign != 0));
      if (!std::string_view(source_).substr(next).starts_with("endraw")) continue;
      next = SkipSpace(next + 6);
      const char end_sign = SignAt(next);
      if (end_sign != 0) ++next;
      if (!std::string_view(source_).substr(next).starts_with("%}")) continue;
      PushData(
          BeforeTag(std::string_view(source_).substr(position_, tag - position_), sign, false));
      AdvanceTo(tag);
      FinishTag(next + 2, end_sign, true);
      return;
    }
    Fail("a raw block has no end");
  }

  void LexTag(bool is_variable) {
    const std::string_view closing = is_variable ? "}}" : "%}";
    Push(is_variable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
    std::string open_brackets;
    while (status_.ok()) {
      AdvanceTo(SkipSpace(position_));
      if (position_ == source_.size()) return Fail("a tag has no end");
      if (open_brackets.empty()) {
        const char sign = SignAt(position_);
        const bool takes_sign = sign == '-' || (sign == '+' && !is_variable);
        const size_t end = position_ + (takes_sign ? 1 : 0);
        if (std::string_view(source_).substr(end).starts_with(closing)) {
          Push(is_variable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd);
          return FinishTag(end + 2, takes_sign ? sign : 0, !is_variable);
        }
      }
      LexToken(&open_brackets);
    }
  }

  void LexToken(std::string* open_brackets) {
    const char c = source_[position_];
    if (IsDecimal(c)) return LexNumber();
    if (c == '\'' || c == '"') return LexString();
    if (!IsNameStart(c)) return LexOperator(open_brackets);
    size_t end = position_;
    while (end < source_.size() && IsNameByte(source_[end])) ++end;
    if (end - position_ > kMaxNameBytes)
      return Fail(ErrorCode::kLimitExceeded, "a name is too long");
    Push(TokenKind::kName, source_.substr(position_, end - position_));
    position_ = end;
  }

  void LexString() {
    const char quote = source_[position_];
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Fail("a string has no end");
    Result<std::string> text =
        DecodeStringLiteral(std::string_view(source_).substr(position_ + 1, end - position_ - 1));
    if (!text.ok()) return Fail(text.status().code(), text.status().message());
    Push(TokenKind::kString, *std::move(text));
    AdvanceTo(end + 1);
  }

  // Digits with single underscores between them, from `position`.
  size_t SkipDigits(size_t position) const {
    while (position < source_.size() &&
           (IsDecimal(source_[position]) ||
            (source_[position] == '_' && position + 1 < source_.size() &&
             IsDecimal(source_[position + 1])))) {
      ++position;
    }
    return position;
  }

  bool DigitAt(size_t position) const {
    return position < source_.size() && IsDecimal(source_[position]);
  }

  // End of a fraction and an exponent behind the digits that end at `position`.
  size_t SkipFraction(size_t position) const {
    if (position < source_.size() && source_[position] == '.' && DigitAt(position + 1)) {
      position = SkipDigits(position + 1);
    }
    if (position < source_.size() && (source_[position] == 'e' || source_[position] == 'E')) {
      const size_t digits = position + 1 + (SignAt(position + 1) != 0);
      if (DigitAt(digits)) position = SkipDigits(digits);
    }
    return position;
  }

  void LexNumber() {
    if (source_[position_] == '0' && position_ + 1 < source_.size()) {
      const char marker = static_cast<char>(source_[position_ + 1] | 0x20);
      const int base = marker == 'x' ? 16 : marker == 'o' ? 8 : marker == 'b' ? 2 : 0;
      if (base != 0) return LexBasedInteger(base);
    }
    const size_t integer_end = SkipDigits(position_);
    const bool after_dot = position_ > 0 && source_[position_ - 1] == '.';
    const size_t end = after_dot ? integer_end : SkipFraction(integer_end);
    std::string digits = source_.substr(position_, end - position_);
    std::erase(digits, '_');
    if (end == integer_end) {
      if (digits[0] == '0' && digits.find_first_not_of('0') != std::string::npos) {
        return Fail("an integer starts with 0");
      }
      Token& token = Push(TokenKind::kInteger, digits);
      const auto read =
          std::from_chars(digits.data(), digits.data() + digits.size(), token.integer);
      if (read.ec != std::errc()) return Fail(ErrorCode::kUnsupported, "an integer beyond 64 bits");
    } else {
      Token& token = Push(TokenKind::kFloat, digits);
      const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), token.number);
      if (read.ec != std::errc()) return Fail(ErrorCode::kUnsupported, "a float out of range");
    }
    position_ = end;
  }

  void LexBasedInteger(int base) {
    size_t end = position_ + 2;
    while (end < source_.size() && IsNameByte(source_[end])) ++end;
    std::string digits = source_.substr(position_ + 2, end - position_ - 2);
    std::erase(digits, '_');
    Token& token = Push(TokenKind::kInteger, digits);
    const char* last = digits.data() + digits.size();
    const auto read = std::from_chars(digits.data(), last, token.integer, base);
    if (read.ec != std::errc() || read.ptr != last) return Fail("not an integer");
    position_ = end;
  }

  void LexOperator(std::string* open_brackets) {
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";",
    };
    for (const std::string_view op : kOperators) {
      if (!At(op)) continue;
      if (op == "(" || op == "[" || op == "{") {
        open_brackets->push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
      } else if (op == ")" || op == "]" || op == "}") {
        if (open_brackets->empty() || open_brackets->back() != op[0]) {
          return Fail(fmt::format("unexpected '{}'", op));
        }
        open_brackets->pop_back();
      }
      Push(TokenKind::kOperator, std::string(op));
      position_ += op.size();
      return;
    }
    Fail("unexpected character");
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was matched before ended a line
  std::vector<Token> tokens_;
  Status status_;
};

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace sluice::chat_template
