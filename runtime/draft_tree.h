// Trees of drafts, as tokens of a pass that verifies all of their paths (SpecInfer: Miao et al.,
// 2024).
#ifndef SLUICE_RUNTIME_DRAFT_TREE_H_
#define SLUICE_RUNTIME_DRAFT_TREE_H_

#include <cstdint>
#include <vector>

#include "formats/status.h"
#include "runtime/batch.h"
#include "runtime/kv_cache.h"

namespace sluice {

// Nodes in an order in which each comes after its parent.
struct DraftTree {
  std::vector<int32_t> ids;      // tokens; at most kMostTreeNodes
  std::vector<int32_t> parents;  // nodes; -1: it follows the last token of the cache
};

// Appends the nodes to the batch, as the next tokens of the sequence whose first `begin` tokens are
// in the cache: node i goes to slot begin + i of the table, at the position of its depth, and its
// logits are wanted. The table has those slots, may be written there, and outlives the pass. A tree
// that is a chain becomes tokens like those of any sequence, with the same bits. Slots, not
// positions, are what the context must hold.
// Error: kInvalidArgument, with the batch as it was, for more nodes, for a parent that does not
// come before, and for a table that is too short.
Status AppendTree(const DraftTree& tree, const BlockTable& table, int64_t begin, Batch* batch);

// Where tokens of the batch are in a tree, says of those that came after it that they are in none.
// To be called when all are there.
void FillTrees(Batch* batch);

// The nodes from the root to this one: what KvCache::KeepPath takes.
std::vector<int64_t> PathTo(const DraftTree& tree, int64_t node);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_DRAFT_TREE_H_
