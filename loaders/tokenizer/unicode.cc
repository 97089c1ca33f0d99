#include "loaders/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <vector>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

utf8proc_category_t Category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool InRange(char32_t code, char32_t low, char32_t high) { return code >= low && code <= high; }

bool IsAscii(char c) { return static_cast<uint8_t>(c) < 0x80; }

struct Range {
  char32_t first;
  char32_t last;
};

// Characters added after Unicode 9 that have a combining class or a decomposition. The
// normalization in `tokenizers` is of Unicode 9, and models are trained on what it gives.
constexpr auto kUnknownToNormalization = std::to_array<Range>({
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},
    {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
});

// Marks added after Unicode 9, which StripAccents of `tokenizers` leaves in the text. Ranges reach
// over what is no mark.
constexpr auto kMarksAfterUnicode9 = std::to_array<Range>({
    {0x07FD, 0x07FD},   {0x0898, 0x08D3},   {0x09FE, 0x09FE},   {0x0AFA, 0x0AFF},
    {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},   {0x0CF3, 0x0D00},   {0x0D3B, 0x0D3C},
    {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x1715, 0x1715},
    {0x180F, 0x180F},   {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0xA8FF, 0xA8FF},   {0x10D24, 0x10F85}, {0x11070, 0x11074},
    {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111C9, 0x111C9}, {0x111CE, 0x111CF},
    {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x11A99},
    {0x11D31, 0x13455}, {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FF1},
    {0x1CF00, 0x1CF46}, {0x1E08F, 0x1E4EF},
});

template <typename Ranges>
bool IsIn(const Ranges& ranges, char32_t code) {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), code,
                       [](char32_t c, const Range& range) { return c < range.first; });
  return after != ranges.begin() && code <= std::prev(after)->last;
}

bool IsKnownToNormalization(char32_t code) { return !IsIn(kUnknownToNormalization, code); }

int CombiningClass(char32_t code) {
  if (!IsKnownToNormalization(code)) return 0;
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class;
}

void AppendDecomposed(char32_t code, bool compatible, std::vector<char32_t>* codes) {
  const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
  // The longest decomposition of one character is 18 (U+FDFA); utf8proc says what it needs.
  constexpr utf8proc_ssize_t kMost = 32;
  utf8proc_int32_t parts[kMost];
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), parts, kMost,
                              static_cast<utf8proc_option_t>(options), &boundary);
  if (!IsKnownToNormalization(code) || count < 1 || count > kMost) {
    codes->push_back(code);
    return;
  }
  for (utf8proc_ssize_t i = 0; i < count; ++i) codes->push_back(static_cast<char32_t>(parts[i]));
}

// The canonical ordering (UAX #15, D109). utf8proc's own is quadratic in the length of a run of
// marks.
void OrderMarks(std::vector<char32_t>* codes) {
  const auto is_mark = [](char32_t code) { return CombiningClass(code) != 0; };
  for (auto at = codes->begin(); at != codes->end();) {
    at = std::find_if(at, codes->end(), is_mark);
    const auto end = std::find_if_not(at, codes->end(), is_mark);
    std::stable_sort(at, end,
                     [](char32_t a, char32_t b) { return CombiningClass(a) < CombiningClass(b); });
    at = end;
  }
}

// The primary composite of two characters, or 0.
char32_t ComposePair(char32_t first, char32_t second) {
  if (!IsKnownToNormalization(first) || !IsKnownToNormalization(second)) return 0;
  utf8proc_int32_t pair[2] = {static_cast<utf8proc_int32_t>(first),
                              static_cast<utf8proc_int32_t>(second)};
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  if (utf8proc_normalize_utf32(pair, 2, options) != 1) return 0;
  const auto composite = static_cast<char32_t>(pair[0]);
  return IsKnownToNormalization(composite) ? composite : 0;
}

// The canonical composition (UAX #15, D117), in place.
void Compose(std::vector<char32_t>* codes) {
  constexpr size_t kNoStarter = ~size_t{0};
  size_t starter = kNoStarter;
  size_t size = 0;
  int last_class = -1;  // of what was kept since the starter; -1: nothing
  for (const char32_t code : *codes) {
    const int combining_class = CombiningClass(code);
    if (starter != kNoStarter && last_class < combining_class) {
      if (const char32_t composite = ComposePair((*codes)[starter], code); composite != 0) {
        (*codes)[starter] = composite;
        continue;
      }
    }
    last_class = combining_class;
    if (combining_class == 0) {
      starter = size;
      last_class = -1;
    }
    (*codes)[size++] = code;
  }
  codes->resize(size);
}

void AppendNormalized(std::string_view text, NormalizationForm form, std::string* out) {
  const bool compatible = form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd;
  std::vector<char32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    AppendDecomposed(Utf8At(text, at, &length), compatible, &codes);
    at += length;
  }
  OrderMarks(&codes);
  if (form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc) Compose(&codes);
  for (const char32_t code : codes) AppendUtf8(code, out);
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

bool IsAccent(char32_t code) {
  // Marks until Unicode 11, letters since (Vedic signs).
  if (code == 0x1CF2 || code == 0x1CF3) return true;
  switch (Category(code)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return !IsIn(kMarksAfterUnicode9, code);
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
