// Which keys a token sees, in the splits and blocks of attention_tiles.h. Local to the file that
// includes it, as all of that.
#ifndef SLUICE_KERNELS_CPU_ATTENTION_KEYS_H_
#define SLUICE_KERNELS_CPU_ATTENTION_KEYS_H_

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/ops.h"
#include "kernels/visible_keys.h"

namespace sluice {
namespace {  // NOLINT: see above

// Keys that are seen, by their place in a block or by their index.
struct Span {
  int64_t begin, end;
};

// The keys that a token sees, by their index. In a tree the first and the last of them: AttendBlock
// knows those between that it does not see.
Span KeysOf(const AttentionArgs& args, int64_t token) {
  const int64_t length = args.lengths[token];
  if (args.tree_begin != nullptr) return {VisibleKeysOf(args, token).begin, length};
  return {args.window == 0 ? 0 : std::max<int64_t>(length - args.window, 0), length};
}

Span KeysOfSplit(const AttentionArgs& args, int64_t token, int64_t split) {
  const Span keys = KeysOf(args, token);
  return {std::max(keys.begin, split * kAttentionSplitKeys),
          std::min(keys.end, (split + 1) * kAttentionSplitKeys)};
}

// Up to where a token sees all keys of a span that ends there or later, at their own positions.
int64_t PlainEnd(const AttentionArgs& args, int64_t token, int64_t end) {
  if (args.tree_begin == nullptr) return end;
  return std::min(end, VisibleKeysOf(args, token).plain_end);
}

// What a token sees of a block in which it does not see all nodes of its tree, or where they stand
// at other positions than their slots.
struct Branch {
  uint32_t seen;  // bit j: key j
  int64_t positions[kKvBlockTokens];
};

// What a token sees of the keys [begin, begin + 16); false: all of the span that it sees, at their
// own positions.
bool BranchOf(const AttentionArgs& args, int64_t token, int64_t begin, Branch* branch) {
  const VisibleKeys keys = VisibleKeysOf(args, token);
  if (std::min(begin + kKvBlockTokens, keys.end) <= keys.plain_end) return false;
  branch->seen = 0;
  for (int64_t j = 0; j < kKvBlockTokens; ++j) {
    const bool seen = Sees(keys, begin + j);
    branch->seen |= static_cast<uint32_t>(seen) << j;
    branch->positions[j] = seen ? PositionOf(keys, begin + j) : keys.own;
  }
  return true;
}

// The first run of bits that are set, which it takes away from them.
Span TakeRun(uint32_t* bits) {
  const int begin = std::countr_zero(*bits);
  const int end = begin + std::countr_one(*bits >> begin);
  *bits &= ~uint32_t{0} << end;
  return {begin, end};
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_ATTENTION_KEYS_H_
