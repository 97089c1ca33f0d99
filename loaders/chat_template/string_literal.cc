#include "loaders/chat_template/string_literal.h"

#include <cstdint>

#include "loaders/chat_template/marked_string.h"

namespace sluice::chat_template {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Reads exactly `count` hexadecimal digits; false if they are not there.
bool ReadHex(std::string_view body, size_t position, int count, uint32_t* value) {
  *value = 0;
  for (int i = 0; i < count; ++i) {
    const size_t at = position + static_cast<size_t>(i);
    const int digit = at < body.size() ? HexDigit(body[at]) : -1;
    if (digit < 0) return false;
    *value = *value * 16 + static_cast<uint32_t>(digit);
  }
  return true;
}

// The character of a one-letter escape, or 0.
char SimpleEscape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return 0;
  }
}

// An octal escape of up to three digits at *position; moves behind it.
uint32_t ReadOctal(std::string_view body, size_t* position) {
  uint32_t value = 0;
  for (int i = 0; i < 3 && *position < body.size(); ++i, ++*position) {
    const char c = body[*position];
    if (c < '0' || c > '7') break;
    value = value * 8 + static_cast<uint32_t>(c - '0');
  }
  return value;
}

}  // namespace

Result<std::string> DecodeStringLiteral(std::string_view body) {
  std::string out;
  for (size_t i = 0; i < body.size();) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      out.push_back(body[i++]);
      continue;
    }
    const char kind = body[i + 1];
    i += 2;
    if (const char simple = SimpleEscape(kind)) {
      out.push_back(simple);
    } else if (kind == 'x' || kind == 'u' || kind == 'U') {
      const int digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
      uint32_t value;
      if (!ReadHex(body, i, digits, &value) || value > 0x10ffff ||
          (value >= 0xd800 && value <= 0xdfff)) {
        return Status(ErrorCode::kInvalidArgument, "invalid escape in a string");
      }
      AppendUtf8(value, &out);
      i += static_cast<size_t>(digits);
    } else if (kind >= '0' && kind <= '7') {
      --i;
      AppendUtf8(ReadOctal(body, &i), &out);
    } else if (kind == 'N') {
      return Status(ErrorCode::kUnsupported, "the escape \\N in a string");
    } else if (kind != '\n') {  // Python keeps an escape that it does not know
      out.push_back('\\');
      out.push_back(kind);
    }
  }
  return out;
}

}  // namespace sluice::chat_template
