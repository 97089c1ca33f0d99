#include "formats/quote.h"

#include <cstddef>

namespace sluice {

std::string Quoted(std::string_view name) {
  constexpr size_t kMaxBytes = 120;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : name.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  out += name.size() > kMaxBytes ? "...'" : "'";
  return out;
}

}  // namespace sluice
