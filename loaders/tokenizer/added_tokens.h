// Finds tokens that are recognized in text before it is split: leftmost first, of those the
// longest, without overlap, as `tokenizers` does.
#ifndef SLUICE_LOADERS_TOKENIZER_ADDED_TOKENS_H_
#define SLUICE_LOADERS_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// A range of text, and the token it is or -1. `parse_special` says whether special tokens are
// searched for.
struct TextPart {
  size_t begin = 0;
  size_t end = 0;
  bool parse_special = true;
  int32_t token_id = -1;
};

class AddedTokenFinder {
 public:
  // Adds `token`, searched for as `pattern` (its content, normalized if it is to be). An empty
  // pattern is never found; of equal patterns the last counts. kUnsupported: longer than 1,024
  // bytes, which bounds the work for each byte of text.
  Status Add(const AddedToken& token, std::string_view pattern);

  bool empty() const { return tokens_.empty(); }

  // Cuts `text` into tokens and what lies between. `segments` cover it in ascending order; no token
  // crosses from one into the next, but the whitespace that lstrip and rstrip take may lie in any.
  void Split(std::string_view text, const std::vector<TextPart>& segments,
             std::vector<TextPart>* parts) const;

 private:
  struct Token {
    int32_t id;
    bool special, single_word, lstrip, rstrip;
  };
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    uint32_t token = 0;
  };
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  bool Find(std::string_view text, size_t from, Match* match) const;

  std::vector<Token> tokens_;
  // A trie: node 0 is the root, and the child of a node by a byte is at node * 256 + byte.
  std::unordered_map<uint64_t, uint32_t> children_;
  std::vector<uint32_t> token_at_node_ = {kNone};
  std::array<bool, 256> first_byte_{};
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_ADDED_TOKENS_H_
