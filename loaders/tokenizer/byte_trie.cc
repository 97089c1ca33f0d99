#include "loaders/tokenizer/byte_trie.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sluice {

ByteTrie::ByteTrie(const std::vector<std::string>& texts, std::vector<uint32_t> ids) {
  const auto text = [&](size_t i) -> const std::string& { return texts[ids[i]]; };
  std::sort(ids.begin(), ids.end(), [&](uint32_t a, uint32_t b) { return texts[a] < texts[b]; });
  size_t nodes = 1;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto shared = i == 0 ? text(i).begin()
                               : std::mismatch(text(i).begin(), text(i).end(), text(i - 1).begin(),
                                               text(i - 1).end())
                                     .first;
    nodes += static_cast<size_t>(text(i).end() - shared);
  }
  first_child_.reserve(nodes + 1);
  bytes_.reserve(nodes);
  ids_.reserve(nodes);
  bytes_.push_back(0);
  ids_.push_back(-1);
  // The texts that begin as the nodes of one level do, in the nodes' order.
  std::vector<std::pair<uint32_t, uint32_t>> level = {{0, static_cast<uint32_t>(ids.size())}};
  for (size_t depth = 0; !level.empty(); ++depth) {
    std::vector<std::pair<uint32_t, uint32_t>> next;
    for (const auto& [first, last] : level) {
      const size_t node = first_child_.size();
      first_child_.push_back(static_cast<uint32_t>(bytes_.size()));
      uint32_t i = first;
      if (i < last && text(i).size() == depth) ids_[node] = static_cast<int32_t>(ids[i++]);
      while (i < last) {
        const char byte = text(i)[depth];
        const uint32_t begin = i;
        while (i < last && text(i)[depth] == byte) ++i;
        bytes_.push_back(byte);
        ids_.push_back(-1);
        next.emplace_back(begin, i);
      }
    }
    level = std::move(next);
  }
  first_child_.push_back(static_cast<uint32_t>(bytes_.size()));
  for (uint32_t child = first_child_[0]; child < first_child_[1]; ++child) {
    root_children_[static_cast<uint8_t>(bytes_[child])] = child;
  }
}

uint32_t ByteTrie::Child(uint32_t node, char byte) const {
  if (node == kRoot) return root_children_[static_cast<uint8_t>(byte)];
  const uint32_t first = first_child_[node];
  const void* found = std::memchr(bytes_.data() + first, byte, first_child_[node + 1] - first);
  return found == nullptr ? 0
                          : static_cast<uint32_t>(static_cast<const char*>(found) - bytes_.data());
}

}  // namespace sluice
