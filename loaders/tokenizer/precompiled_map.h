// The replacements of characters that a SentencePiece model brings along (nmt_nfkc and the like):
// a double-array trie in Darts-clone's units (github.com/s-yata/darts-clone), whose values are
// offsets of NUL-terminated replacements.
//   uint32 size of the trie in bytes, the trie, the replacements; little-endian
#ifndef SLUICE_LOADERS_TOKENIZER_PRECOMPILED_MAP_H_
#define SLUICE_LOADERS_TOKENIZER_PRECOMPILED_MAP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

namespace sluice {

class PrecompiledMap {
 public:
  // kCorrupt if sizes contradict each other or a replacement is not UTF-8. A damaged trie is found
  // out only by the keys that lead into it, and those have no replacement.
  static Result<PrecompiledMap> Create(std::string_view bytes);

  // SentencePiece: at each place the longest key that matches is replaced. `text` is valid UTF-8.
  std::string ReplaceLongest(std::string_view text) const;

  // `tokenizers`: a grapheme cluster (UAX #29) of less than 6 bytes of which a beginning is a key
  // is replaced as a whole by what the shortest one stands for; other characters alone.
  std::string ReplaceGraphemes(std::string_view text) const;

 private:
  struct Match {
    size_t length;
    std::string_view replacement;
  };
  std::optional<Match> Find(std::string_view text, bool longest) const;
  void AppendCharacters(std::string_view text, std::string* out) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_PRECOMPILED_MAP_H_
