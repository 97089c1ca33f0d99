// A set of strings that is searched from the beginning of a text: 9 bytes of memory for each node.
// Private to this folder.
#ifndef SLUICE_LOADERS_TOKENIZER_BYTE_TRIE_H_
#define SLUICE_LOADERS_TOKENIZER_BYTE_TRIE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

class ByteTrie {
 public:
  ByteTrie() = default;
  // Of texts[id] for each of `ids`, which are distinct texts, none of them empty.
  ByteTrie(const std::vector<std::string>& texts, std::vector<uint32_t> ids);

  static constexpr uint32_t kRoot = 0;
  // 0 (the root is nobody's child) where there is none. Time: a search among at most 256 bytes.
  uint32_t Child(uint32_t node, char byte) const;
  // The id of the text that ends at the node, or -1.
  int32_t IdAt(uint32_t node) const { return ids_[node]; }

 private:
  // Nodes level by level, so that the children of node n are first_child_[n] to
  // first_child_[n + 1], in ascending order of their bytes.
  std::vector<uint32_t> first_child_;
  std::vector<char> bytes_;  // by which a node is reached
  std::vector<int32_t> ids_;
  std::array<uint32_t, 256> root_children_{};
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_BYTE_TRIE_H_
