#include "loaders/tokenizer/replace_literal.h"

namespace sluice {

std::string ReplaceLiteral(std::string_view text, std::string_view pattern,
                           std::string_view content) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(pattern, at);
    if (found == std::string_view::npos) {
      out.append(text.substr(at));
      return out;
    }
    out.append(text.substr(at, found - at));
    out.append(content);
    at = found + pattern.size();
  }
}

}  // namespace sluice
