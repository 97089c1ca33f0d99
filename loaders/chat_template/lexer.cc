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

}  // namespace

Lexer::Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

Token Lexer::Next() {
  while (taken_ == pending_.size() && status_.ok() && position_ < source_.size()) {
    pending_.clear();
    taken_ = 0;
    in_tag_ ? LexInTag() : LexRoot();
  }
  if (status_.ok() && in_tag_ && taken_ == pending_.size()) Fail("a tag has no end");
  if (status_.ok() && taken_ < pending_.size()) return std::move(pending_[taken_++]);
  Token end;
  end.line = line_;
  return end;
}

bool Lexer::At(std::string_view text) const {
  return std::string_view(source_).substr(position_).starts_with(text);
}

void Lexer::Fail(ErrorCode code, const std::string& message) {
  if (status_.ok()) status_ = Status(code, fmt::format("line {}: {}", line_, message));
}

// Moves to `position`, and counts the lines on the way.
void Lexer::AdvanceTo(size_t position) {
  line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                                       source_.begin() + static_cast<ptrdiff_t>(position), '\n'));
  position_ = position;
}

size_t Lexer::SkipSpace(size_t position) const {
  while (position < source_.size() && IsSpace(CharacterAt(source_, position))) {
    position += CharacterBytes(source_, position);
  }
  return position;
}

Token& Lexer::Push(TokenKind kind, std::string text) {
  Token token;
  token.kind = kind;
  token.line = line_;
  token.text = std::move(text);
  pending_.push_back(std::move(token));
  return pending_.back();
}

void Lexer::PushData(std::string_view text) {
  if (!text.empty()) Push(TokenKind::kData, std::string(text));
}

// The text before a tag, without the white space that the tag takes away.
std::string_view Lexer::BeforeTag(std::string_view text, char sign, bool is_variable) const {
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
char Lexer::SignAt(size_t position) const {
  if (position >= source_.size()) return 0;
  return source_[position] == '-' || source_[position] == '+' ? source_[position] : 0;
}

size_t Lexer::FindTag(size_t position) const {
  for (;;) {
    position = source_.find('{', position);
    if (position == std::string::npos || position + 1 >= source_.size()) return std::string::npos;
    const char kind = source_[position + 1];
    if (kind == '{' || kind == '%' || kind == '#') return position;
    ++position;
  }
}

void Lexer::LexRoot() {
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
    in_tag_ = true;
    in_variable_ = kind == '{';
    Push(in_variable_ ? TokenKind::kVariableBegin : TokenKind::kBlockBegin);
  }
}

void Lexer::LexComment() {
  const size_t end = source_.find("#}", position_);
  if (end == std::string::npos) return Fail("a comment has no end");
  const char sign = end > position_ ? SignAt(end - 1) : 0;
  FinishTag(end + 2, sign, /*trims_newline=*/true);
}

// Behind a closing tag: takes the white space that belongs to it.
void Lexer::FinishTag(size_t behind, char sign, bool trims_newline) {
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
bool Lexer::SkipRawBegin() {
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

void Lexer::LexRaw() {
  for (size_t tag = source_.find("{%", position_); tag != std::string::npos;
       tag = source_.find("{%", tag + 2)) {
    const char sign = SignAt(tag + 2);
    size_t next = SkipSpace(tag + 2 + (sign != 0));
    if (!std::string_view(source_).substr(next).starts_with("endraw")) continue;
    next = SkipSpace(next + 6);
    const char end_sign = SignAt(next);
    if (end_sign != 0) ++next;
    if (!std::string_view(source_).substr(next).starts_with("%}")) continue;
    PushData(BeforeTag(std::string_view(source_).substr(position_, tag - position_), sign, false));
    AdvanceTo(tag);
    FinishTag(next + 2, end_sign, true);
    return;
  }
  Fail("a raw block has no end");
}

// One token of the tag that is open, or its end.
void Lexer::LexInTag() {
  const std::string_view closing = in_variable_ ? "}}" : "%}";
  AdvanceTo(SkipSpace(position_));
  if (position_ == source_.size()) return Fail("a tag has no end");
  if (!open_brackets_.empty()) return LexToken();
  const char sign = SignAt(position_);
  const bool takes_sign = sign == '-' || (sign == '+' && !in_variable_);
  const size_t end = position_ + (takes_sign ? 1 : 0);
  if (!std::string_view(source_).substr(end).starts_with(closing)) return LexToken();
  Push(in_variable_ ? TokenKind::kVariableEnd : TokenKind::kBlockEnd);
  in_tag_ = false;
  FinishTag(end + 2, takes_sign ? sign : 0, !in_variable_);
}

void Lexer::LexToken() {
  const char c = source_[position_];
  if (IsDecimal(c)) return LexNumber();
  if (c == '\'' || c == '"') return LexString();
  if (!IsNameStart(c)) return LexOperator();
  size_t end = position_;
  while (end < source_.size() && IsNameByte(source_[end])) ++end;
  if (end - position_ > kMaxNameBytes) return Fail(ErrorCode::kLimitExceeded, "a name is too long");
  Push(TokenKind::kName, source_.substr(position_, end - position_));
  position_ = end;
}

void Lexer::LexString() {
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
size_t Lexer::SkipDigits(size_t position) const {
  while (position < source_.size() && (IsDecimal(source_[position]) ||
                                       (source_[position] == '_' && position + 1 < source_.size() &&
                                        IsDecimal(source_[position + 1])))) {
    ++position;
  }
  return position;
}

bool Lexer::DigitAt(size_t position) const {
  return position < source_.size() && IsDecimal(source_[position]);
}

// End of a fraction and an exponent behind the digits that end at `position`.
size_t Lexer::SkipFraction(size_t position) const {
  if (position < source_.size() && source_[position] == '.' && DigitAt(position + 1)) {
    position = SkipDigits(position + 1);
  }
  if (position < source_.size() && (source_[position] == 'e' || source_[position] == 'E')) {
    const size_t digits = position + 1 + (SignAt(position + 1) != 0);
    if (DigitAt(digits)) position = SkipDigits(digits);
  }
  return position;
}

void Lexer::LexNumber() {
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
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), token.integer);
    if (read.ec != std::errc()) return Fail(ErrorCode::kUnsupported, "an integer beyond 64 bits");
  } else {
    Token& token = Push(TokenKind::kFloat, digits);
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), token.number);
    if (read.ec != std::errc()) return Fail(ErrorCode::kUnsupported, "a float out of range");
  }
  position_ = end;
}

void Lexer::LexBasedInteger(int base) {
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

void Lexer::LexOperator() {
  static constexpr std::string_view kOperators[] = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";",
  };
  for (const std::string_view op : kOperators) {
    if (!At(op)) continue;
    if (op == "(" || op == "[" || op == "{") {
      open_brackets_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
    } else if (op == ")" || op == "]" || op == "}") {
      if (open_brackets_.empty() || open_brackets_.back() != op[0]) {
        return Fail(fmt::format("unexpected '{}'", op));
      }
      open_brackets_.pop_back();
    }
    Push(TokenKind::kOperator, std::string(op));
    position_ += op.size();
    return;
  }
  Fail("unexpected character");
}

}  // namespace sluice::chat_template
