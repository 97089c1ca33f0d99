// Which slots of its sequence's cache a token attends to, and the positions of what lies there.
// Everything is local to the file that includes it, which may be compiled for its instruction set.
#ifndef SLUICE_KERNELS_VISIBLE_KEYS_H_
#define SLUICE_KERNELS_VISIBLE_KEYS_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

struct VisibleKeys {
  int64_t begin, end;  // the first slot that the token sees, and the one after its own
  int64_t own;         // the token's position
  // Of the slots from begin to here all are seen, and those before it have their own index as
  // position; without a tree, and for a token whose tree is a chain: end.
  int64_t plain_end;
  int64_t tree_begin;
  uint64_t ancestors;  // nodes of the tree: the token's ancestors and itself
  uint64_t nodes;      // those of them that the window leaves
};

inline VisibleKeys VisibleKeysOf(const AttentionArgs& args, int64_t token) {
  VisibleKeys keys = {};
  keys.end = args.lengths[token];
  const bool in_tree = args.tree_begin != nullptr;
  keys.tree_begin = in_tree ? args.tree_begin[token] : keys.end;
  keys.ancestors = keys.nodes = in_tree ? args.ancestors[token] : 0;
  keys.own = keys.tree_begin + std::popcount(keys.ancestors) - 1;
  keys.plain_end = keys.tree_begin + std::countr_one(keys.ancestors);
  if (args.window != 0) keys.begin = std::max<int64_t>(keys.own + 1 - args.window, 0);
  if (keys.begin >= keys.tree_begin && keys.nodes != 0) {
    for (int64_t hidden = keys.begin - keys.tree_begin; hidden > 0; --hidden) {
      keys.nodes &= keys.nodes - 1;
    }
    keys.begin = keys.tree_begin + std::countr_zero(keys.nodes);
  }
  return keys;
}

inline bool Sees(const VisibleKeys& keys, int64_t slot) {
  if (slot < keys.begin || slot >= keys.end) return false;
  return slot < keys.tree_begin || (keys.nodes >> (slot - keys.tree_begin) & 1) != 0;
}

// Of a slot that is seen.
inline int64_t PositionOf(const VisibleKeys& keys, int64_t slot) {
  if (slot < keys.tree_begin) return slot;
  const uint64_t older = (uint64_t{1} << (slot - keys.tree_begin)) - 1;
  return keys.tree_begin + std::popcount(keys.ancestors & older);
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_VISIBLE_KEYS_H_
