#include "loaders/tokenizer/byte_level.h"

#include <array>
#include <cstdint>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int16_t, kAlphabetEnd> byte{};  // -1: not of the alphabet
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (auto& byte : alphabet.byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                           (byte >= 0xAE && byte <= 0xFF);
    const char32_t code = printable ? static_cast<char32_t>(byte) : next++;
    alphabet.character[static_cast<size_t>(byte)] = code;
    alphabet.byte[code] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

void AppendByteLevel(std::string_view bytes, std::string* out) {
  for (const char c : bytes) AppendUtf8(kAlphabet.character[static_cast<uint8_t>(c)], out);
}

std::optional<std::string> BytesOfByteLevel(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  for (size_t at = 0; at < spelling.size();) {
    size_t length = 0;
    const char32_t code = Utf8At(spelling, at, &length);
    if (code >= kAlphabetEnd || kAlphabet.byte[code] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.byte[code]));
    at += length;
  }
  return bytes;
}

}  // namespace sluice
