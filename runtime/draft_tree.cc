#include "runtime/draft_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "kernels/ops.h"

namespace sluice {
namespace {

Status CheckTree(const DraftTree& tree, const BlockTable& table, int64_t begin) {
  const auto nodes = static_cast<int64_t>(tree.ids.size());
  if (nodes > kMostTreeNodes || tree.parents.size() != tree.ids.size()) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a draft tree of {} nodes and {} parents; {} are the most", nodes,
                              tree.parents.size(), kMostTreeNodes));
  }
  for (int64_t i = 0; i < nodes; ++i) {
    const int32_t parent = tree.parents[static_cast<size_t>(i)];
    if (parent >= -1 && parent < i) continue;
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("node {} of a draft tree has the parent {}", i, parent));
  }
  const auto slots = static_cast<int64_t>(table.blocks.size()) * kKvBlockTokens;
  if (begin >= 0 && begin <= slots - nodes) return Status();
  return Status(
      ErrorCode::kInvalidArgument,
      fmt::format("a draft tree of {} nodes from slot {} on of {} slots", nodes, begin, slots));
}

}  // namespace

Status AppendTree(const DraftTree& tree, const BlockTable& table, int64_t begin, Batch* batch) {
  if (Status s = CheckTree(tree, table, begin); !s.ok()) return s;
  const size_t first = batch->ids.size();
  std::vector<uint64_t> ancestors;
  bool chain = true;
  for (size_t i = 0; i < tree.ids.size(); ++i) {
    const int32_t parent = tree.parents[i];
    const uint64_t own = uint64_t{1} << i;
    ancestors.push_back(own | (parent < 0 ? 0 : ancestors[static_cast<size_t>(parent)]));
    chain = chain && parent == static_cast<int32_t>(i) - 1;
    const int64_t slot = begin + static_cast<int64_t>(i);
    const int depth = std::popcount(ancestors.back()) - 1;
    batch->ids.push_back(tree.ids[i]);
    batch->positions.push_back(static_cast<int32_t>(begin + depth));
    batch->slots.push_back(KvCache::Slot(table, slot));
    batch->lengths.push_back(slot + 1);
    batch->block_tables.push_back(table.blocks.data());
    batch->wanted.push_back(static_cast<int64_t>(first + i));
  }
  if (chain) return Status();
  batch->tree_begins.insert(
      batch->tree_begins.end(),
      batch->lengths.begin() + static_cast<ptrdiff_t>(batch->tree_begins.size()),
      batch->lengths.begin() + static_cast<ptrdiff_t>(first));
  batch->tree_begins.resize(first + tree.ids.size(), begin);
  batch->ancestors.resize(first, 0);
  batch->ancestors.insert(batch->ancestors.end(), ancestors.begin(), ancestors.end());
  return Status();
}

void FillTrees(Batch* batch) {
  if (!batch->has_trees()) return;
  batch->ancestors.resize(batch->ids.size(), 0);
  batch->tree_begins.insert(
      batch->tree_begins.end(),
      batch->lengths.begin() + static_cast<ptrdiff_t>(batch->tree_begins.size()),
      batch->lengths.end());
}

std::vector<int64_t> PathTo(const DraftTree& tree, int64_t node) {
  std::vector<int64_t> path;
  for (; node >= 0; node = tree.parents[static_cast<size_t>(node)]) path.push_back(node);
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace sluice
