// Steps of a group that follow each other and can be one launch of a device, found by looking at
// them: what a table has operations for is Forward's to ask.
#ifndef SLUICE_RUNTIME_STEP_FUSION_H_
#define SLUICE_RUNTIME_STEP_FUSION_H_

#include <cstddef>
#include <optional>
#include <span>

#include "loaders/architecture.h"

namespace sluice {

// What a step leaves its result in.
Buffer ResultOf(const Step& step);

// How many linear steps from `first` on read the same input and write each another buffer, which is
// not that input: they can be computed at once. 0: `first` is none.
size_t LinearsOfOneInput(std::span<const Step> steps, size_t first);

// Steps that make an attention's queries and keys of what the matrices left, and the attention.
struct PreparedAttention {
  const RmsNormStep* query_norm = nullptr;  // both or none: of each head by itself
  const RmsNormStep* key_norm = nullptr;
  const RopeStep* query = nullptr;
  const RopeStep* key = nullptr;
  const AttentionStep* attention = nullptr;
  size_t count = 0;  // of steps
};
// Whether the steps from `first` on are one: norms of queries and keys or none, rotations of both,
// the attention.
std::optional<PreparedAttention> PreparedAttentionAt(std::span<const Step> steps, size_t first);

// Who reads the result of a step next: the matrix of a linear step; kNoTensor: the steps end before
// anything reads or writes it; nothing: something else does.
std::optional<TensorIndex> MatrixAfter(std::span<const Step> steps, size_t writer);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_STEP_FUSION_H_
