#include "loaders/chat_template/marked_string.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

namespace sluice::chat_template {
namespace {

utf8proc_category_t Category(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(character));
}

// Appends the upper- or lower-case form. Of the characters that grow, German sharp s is the one
// that has no single upper-case form in common use.
void AppendCased(char32_t character, bool upper, std::string* out) {
  if (upper && character == U'\u00df') {
    out->append("SS");
    return;
  }
  const auto code = static_cast<utf8proc_int32_t>(character);
  AppendUtf8(static_cast<char32_t>(upper ? utf8proc_toupper(code) : utf8proc_tolower(code)), out);
}

bool IsCased(char32_t character) {
  const auto code = static_cast<utf8proc_int32_t>(character);
  return utf8proc_toupper(code) != code || utf8proc_tolower(code) != code;
}

bool IsLineEnd(char32_t character) {
  return (character >= 0x0a && character <= 0x0d) || (character >= 0x1c && character <= 0x1e) ||
         character == 0x85 || character == 0x2028 || character == 0x2029;
}

bool Strips(char32_t character, const std::string* characters) {
  if (characters == nullptr) return IsSpace(character);
  for (size_t i = 0; i < characters->size(); i += CharacterBytes(*characters, i)) {
    if (CharacterAt(*characters, i) == character) return true;
  }
  return false;
}

}  // namespace

Origin MarkedString::OriginAt(size_t position) const {
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), position,
                                    [](size_t p, const Run& r) { return p < r.end; });
  return run == runs_.end() ? Origin::kTemplate : run->origin;
}

void MarkedString::Append(std::string_view text, Origin origin) {
  if (text.empty()) return;
  text_.append(text);
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = text_.size();
  } else {
    runs_.push_back({text_.size(), origin});
  }
}

void MarkedString::AppendRange(const MarkedString& other, size_t begin, size_t end) {
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](size_t p, const Run& r) { return p < r.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    Append(std::string_view(other.text_).substr(begin, stop - begin), run->origin);
    begin = stop;
  }
}

MarkedString MarkedString::Range(size_t begin, size_t end) const {
  MarkedString part;
  part.AppendRange(*this, begin, end);
  part.is_html_ = is_html_;
  return part;
}

MarkedString EscapeHtml(const MarkedString& text) {
  if (text.is_html()) return text;
  MarkedString out;
  for (size_t i = 0; i < text.size(); ++i) {
    const Origin origin = text.OriginAt(i);
    switch (text.text()[i]) {
      case '&':
        out.Append("&amp;", origin);
        break;
      case '<':
        out.Append("&lt;", origin);
        break;
      case '>':
        out.Append("&gt;", origin);
        break;
      case '"':
        out.Append("&#34;", origin);
        break;
      case '\'':
        out.Append("&#39;", origin);
        break;
      default:
        out.AppendRange(text, i, i + 1);
    }
  }
  out.set_html();
  return out;
}

size_t CharacterBytes(std::string_view text, size_t position) {
  utf8proc_int32_t character;
  const utf8proc_ssize_t bytes = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + position,
      static_cast<utf8proc_ssize_t>(std::min<size_t>(4, text.size() - position)), &character);
  return bytes > 0 ? static_cast<size_t>(bytes) : 1;
}

char32_t CharacterAt(std::string_view text, size_t position) {
  utf8proc_int32_t character;
  const utf8proc_ssize_t bytes = utf8proc_iterate(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + position,
      static_cast<utf8proc_ssize_t>(std::min<size_t>(4, text.size() - position)), &character);
  if (bytes > 0) return static_cast<char32_t>(character);
  return 0xdc00 + static_cast<unsigned char>(text[position]);
}

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); i += CharacterBytes(text, i)) ++count;
  return count;
}

size_t CharacterOffset(std::string_view text, size_t index) {
  size_t position = 0;
  while (index > 0 && position < text.size()) {
    position += CharacterBytes(text, position);
    --index;
  }
  return position;
}

void AppendUtf8(char32_t character, std::string* text) {
  if (character >= 0xdc80 && character <= 0xdcff) {  // an invalid byte goes out as it came in
    text->push_back(static_cast<char>(character - 0xdc00));
    return;
  }
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t count =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool IsPrintable(char32_t character) {
  if (character == U' ') return true;
  switch (Category(character)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool IsAlpha(char32_t character) {
  const utf8proc_category_t category = Category(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsDigit(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_ND; }
bool IsUpper(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_LU; }
bool IsLower(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_LL; }

MarkedString ChangeCase(const MarkedString& text, LetterCase letter_case) {
  MarkedString out;
  std::string piece;
  bool after_letter = false;
  for (size_t i = 0; i < text.size(); i += CharacterBytes(text.text(), i)) {
    const char32_t character = CharacterAt(text.text(), i);
    bool upper = letter_case == LetterCase::kUpper;
    if (letter_case == LetterCase::kTitle) upper = !after_letter;
    if (letter_case == LetterCase::kCapitalize) upper = i == 0;
    if (letter_case == LetterCase::kSwap) upper = IsLower(character);
    after_letter = IsCased(character);
    piece.clear();
    AppendCased(character, upper, &piece);
    out.Append(piece, text.OriginAt(i));
  }
  return out;
}

MarkedString Strip(const MarkedString& text, const std::string* characters, StripSides sides) {
  const std::string& bytes = text.text();
  size_t begin = 0;
  size_t end = bytes.size();
  while (sides.left && begin < end && Strips(CharacterAt(bytes, begin), characters)) {
    begin += CharacterBytes(bytes, begin);
  }
  while (sides.right && begin < end) {
    size_t last = end - 1;
    while (last > begin && end - last < 4 && (bytes[last] & 0xc0) == 0x80) --last;
    if (CharacterBytes(bytes, last) != end - last) last = end - 1;
    if (!Strips(CharacterAt(bytes, last), characters)) break;
    end = last;
  }
  return text.Range(begin, end);
}

size_t Find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<std::pair<size_t, size_t>> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::pair<size_t, size_t>> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = CharacterBytes(text, i);
    if (!IsLineEnd(CharacterAt(text, i))) {
      i += bytes;
      continue;
    }
    size_t next = i + bytes;
    if (text[i] == '\r' && next < text.size() && text[next] == '\n') ++next;
    lines.emplace_back(begin, keep_ends ? next : i);
    begin = i = next;
  }
  if (begin < text.size()) lines.emplace_back(begin, text.size());
  return lines;
}

}  // namespace sluice::chat_template
