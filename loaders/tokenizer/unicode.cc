#include "loaders/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

utf8proc_category_t Category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool InRange(char32_t code, char32_t low, char32_t high) { return code >= low && code <= high; }

bool IsAscii(char c) { return static_cast<uint8_t>(c) < 0x80; }

int CombiningClass(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

// utf8proc's own ordering of combining marks is quadratic in the length of their run, so the
// canonical ordering (UAX #15, D109) is done here, and only its composition is used.
void OrderMarks(std::vector<utf8proc_int32_t>* codes) {
  const auto is_mark = [](utf8proc_int32_t code) { return CombiningClass(code) != 0; };
  for (auto at = codes->begin(); at != codes->end();) {
    at = std::find_if(at, codes->end(), is_mark);
    const auto end = std::find_if_not(at, codes->end(), is_mark);
    std::stable_sort(at, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    at = end;
  }
}

void AppendNormalized(std::string_view text, NormalizationForm form, std::string* out) {
  const bool compatible = form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd;
  const bool compose = form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc;
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    const auto code = static_cast<utf8proc_int32_t>(Utf8At(text, at, &length));
    at += length;
    // The longest decomposition of one character is 18 (U+FDFA); utf8proc says what it needs.
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        code, parts, 32, static_cast<utf8proc_option_t>(options), &boundary);
    if (count < 1 || count > 32) {
      codes.push_back(code);
    } else {
      codes.insert(codes.end(), parts, parts + count);
    }
  }
  OrderMarks(&codes);
  auto length = static_cast<utf8proc_ssize_t>(codes.size());
  if (compose) {
    length = utf8proc_normalize_utf32(
        codes.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) AppendUtf8(static_cast<char32_t>(codes[i]), out);
}

}  // namespace

bool IsWhiteSpace(char32_t code) {
  return InRange(code, 0x09, 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || InRange(code, 0x2000, 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool IsNumeric(char32_t code) {
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    default:
      return false;
  }
}

bool IsPunctuation(char32_t code) {
  if (InRange(code, 0x21, 0x2F) || InRange(code, 0x3A, 0x40) || InRange(code, 0x5B, 0x60) ||
      InRange(code, 0x7B, 0x7E)) {
    return true;
  }
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return true;
    default:
      return false;
  }
}

bool IsWordCharacter(char32_t code) {
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      // Join_Control, and the symbols that are Alphabetic: circled and squared letters.
      return code == 0x200C || code == 0x200D || InRange(code, 0x24B6, 0x24E9) ||
             InRange(code, 0x1F130, 0x1F149) || InRange(code, 0x1F150, 0x1F169) ||
             InRange(code, 0x1F170, 0x1F189);
  }
}

std::string NormalizeUnicode(std::string_view text, NormalizationForm form) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && IsAscii(text[end])) ++end;
    if (end == text.size()) {
      out.append(text.substr(at));
      break;
    }
    // ASCII is its own normal form, but its last character may compose with a mark that follows.
    const size_t first = end > at ? end - 1 : end;
    out.append(text.substr(at, first - at));
    while (end < text.size() && !IsAscii(text[end])) ++end;
    AppendNormalized(text.substr(first, end - first), form, &out);
    at = end;
  }
  return out;
}

std::string LowercaseUnicode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    const char32_t code = Utf8At(text, at, &length);
    at += length;
    if (code == 0x130) {
      out.append("i\xCC\x87");  // the only character whose lower case is two
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))),
                 &out);
    }
  }
  return out;
}

}  // namespace sluice
