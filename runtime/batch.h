// What one forward pass computes: plain data, made by the scheduler.
#ifndef SLUICE_RUNTIME_BATCH_H_
#define SLUICE_RUNTIME_BATCH_H_

#include <cstdint>
#include <vector>

namespace sluice {

// All per-token vectors have one entry for each token of the pass. Tokens of one sequence stand in
// the order of their slots; every token attends to the first `lengths` slots of its table, its own
// included, but for those of a draft tree that are not its ancestors.
struct Batch {
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;                 // where K and V of the token go
  std::vector<int64_t> lengths;               // slots that the token sees
  std::vector<const uint32_t*> block_tables;  // of the token's sequence; outlive the pass
  std::vector<int64_t> wanted;                // tokens whose logits are wanted, ascending
  // Draft trees as AttentionArgs has them; both empty where no token of the pass is in one. Made by
  // AppendTree and FillTrees (draft_tree.h).
  std::vector<int64_t> tree_begins;
  std::vector<uint64_t> ancestors;
  // Tokens from this one on are of prompts, those before it were generated.
  int64_t first_prompt_token = 0;

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
  bool has_trees() const { return !ancestors.empty(); }
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_BATCH_H_
