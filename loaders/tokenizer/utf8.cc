#include "loaders/tokenizer/utf8.h"

#include <cstdint>

namespace sluice {
namespace {

// The bytes after the lead byte: how many, and the range of the first of them (Table 3-7).
struct LeadByte {
  int trailing;
  uint8_t first_low;
  uint8_t first_high;
};

LeadByte Classify(uint8_t lead) {
  if (lead >= 0xC2 && lead <= 0xDF) return {1, 0x80, 0xBF};
  if (lead == 0xE0) return {2, 0xA0, 0xBF};
  if (lead == 0xED) return {2, 0x80, 0x9F};
  if (lead >= 0xE1 && lead <= 0xEF) return {2, 0x80, 0xBF};
  if (lead == 0xF0) return {3, 0x90, 0xBF};
  if (lead >= 0xF1 && lead <= 0xF3) return {3, 0x80, 0xBF};
  if (lead == 0xF4) return {3, 0x80, 0x8F};
  return {0, 1, 0};
}

}  // namespace

Utf8Step DecodeUtf8(std::string_view text, size_t at) {
  const auto lead = static_cast<uint8_t>(text[at]);
  if (lead < 0x80) return {lead, 1, true, false};
  const LeadByte kind = Classify(lead);
  if (kind.trailing == 0) return {0xFFFD, 1, false, false};
  char32_t code = lead & (0x3F >> kind.trailing);
  for (int i = 1; i <= kind.trailing; ++i) {
    const size_t where = at + static_cast<size_t>(i);
    if (where >= text.size()) return {0xFFFD, static_cast<size_t>(i), false, true};
    const auto byte = static_cast<uint8_t>(text[where]);
    const uint8_t low = i == 1 ? kind.first_low : 0x80;
    const uint8_t high = i == 1 ? kind.first_high : 0xBF;
    if (byte < low || byte > high) return {0xFFFD, static_cast<size_t>(i), false, false};
    code = (code << 6) | (byte & 0x3F);
  }
  return {code, static_cast<size_t>(kind.trailing) + 1, true, false};
}

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text, at);
    if (!step.valid) return false;
    at += step.length;
  }
  return true;
}

void AppendRepairedUtf8(std::string_view text, std::string* out) {
  size_t copied = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = DecodeUtf8(text, at);
    if (!step.valid) {
      out->append(text.substr(copied, at - copied));
      out->append(kReplacementCharacter);
      copied = at + step.length;
    }
    at += step.length;
  }
  out->append(text.substr(copied));
}

void AppendUtf8(char32_t code, std::string* out) {
  const auto put = [out](char32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

char32_t Utf8At(std::string_view valid_text, size_t at, size_t* length) {
  const Utf8Step step = DecodeUtf8(valid_text, at);
  *length = step.length;
  return step.code;
}

char32_t Utf8Before(std::string_view valid_text, size_t end, size_t* length) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(valid_text[begin]) & 0xC0) == 0x80) --begin;
  return Utf8At(valid_text, begin, length);
}

}  // namespace sluice
