#include "runtime/step_fusion.h"

#include <gtest/gtest.h>

#include <vector>

namespace sluice {
namespace {

LinearStep Linear(Buffer in, Buffer out, TensorIndex weight, bool add = false) {
  return {in, out, weight, kNoTensor, add};
}

AttentionStep Attention(int64_t heads, int64_t kv_heads, int64_t dim) {
  return {Buffer::kQuery,
          Buffer::kKey,
          Buffer::kValue,
          Buffer::kAttended,
          0,
          heads,
          kv_heads,
          dim,
          1.0f,
          0,
          0};
}

// A block of Llama up to its output.
std::vector<Step> LlamaAttention() {
  return {RmsNormStep{Buffer::kHidden, Buffer::kNormed, 0, 1e-5f},
          Linear(Buffer::kNormed, Buffer::kQuery, 1),
          Linear(Buffer::kNormed, Buffer::kKey, 2),
          Linear(Buffer::kNormed, Buffer::kValue, 3),
          RopeStep{Buffer::kQuery, 4, 8, 0},
          RopeStep{Buffer::kKey, 2, 8, 0},
          Attention(4, 2, 8),
          Linear(Buffer::kAttended, Buffer::kHidden, 4, true)};
}

TEST(StepFusion, QueriesKeysAndValuesHaveOneInput) {
  const std::vector<Step> steps = LlamaAttention();
  EXPECT_EQ(LinearsOfOneInput(steps, 0), 0u);
  EXPECT_EQ(LinearsOfOneInput(steps, 1), 3u);
  EXPECT_EQ(LinearsOfOneInput(steps, 2), 2u);
  EXPECT_EQ(LinearsOfOneInput(steps, 7), 1u);
}

TEST(StepFusion, AMatrixThatWritesTheInputOrTheSameResultComesLater) {
  const std::vector<Step> same_result = {Linear(Buffer::kNormed, Buffer::kQuery, 0),
                                         Linear(Buffer::kNormed, Buffer::kQuery, 1, true)};
  EXPECT_EQ(LinearsOfOneInput(same_result, 0), 1u);
  const std::vector<Step> writes_input = {Linear(Buffer::kNormed, Buffer::kQuery, 0),
                                          Linear(Buffer::kNormed, Buffer::kNormed, 1),
                                          Linear(Buffer::kNormed, Buffer::kKey, 2)};
  EXPECT_EQ(LinearsOfOneInput(writes_input, 0), 1u);
  EXPECT_EQ(LinearsOfOneInput(writes_input, 1), 0u);
}

size_t CountAt(const std::vector<Step>& steps, size_t first) {
  const std::optional<PreparedAttention> found = PreparedAttentionAt(steps, first);
  return found ? found->count : 0;
}

TEST(StepFusion, OnlyRotationsOfTheAttentionThatFollowsGoWithIt) {
  const std::vector<Step> steps = LlamaAttention();
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(CountAt(steps, i), i == 4 ? 3u : 0u) << i;

  std::vector<Step> keys_first = steps;
  std::swap(keys_first[4], keys_first[5]);
  EXPECT_EQ(CountAt(keys_first, 4), 0u);

  std::vector<Step> no_attention = steps;
  no_attention.resize(6);
  EXPECT_EQ(CountAt(no_attention, 4), 0u);

  std::vector<Step> other_heads = steps;
  other_heads[5] = RopeStep{Buffer::kKey, 1, 8, 0};
  EXPECT_EQ(CountAt(other_heads, 4), 0u);
}

TEST(StepFusion, NormsOfEachHeadGoWithTheirRotation) {
  const RmsNormStep query = {Buffer::kQuery, Buffer::kQuery, 5, 1e-6f, 4};
  const RmsNormStep key = {Buffer::kKey, Buffer::kKey, 6, 1e-6f, 2};
  const auto with = [](const RmsNormStep& first, const RmsNormStep& second) {
    std::vector<Step> steps = LlamaAttention();
    steps.insert(steps.begin() + 4, {first, second});
    return steps;
  };
  const std::vector<Step> steps = with(query, key);
  EXPECT_EQ(CountAt(steps, 4), 5u);
  EXPECT_EQ(CountAt(steps, 5), 0u);
  EXPECT_EQ(CountAt(steps, 6), 3u);
  const std::optional<PreparedAttention> found = PreparedAttentionAt(steps, 4);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->query_norm->weight, 5);
  EXPECT_EQ(found->key_norm->weight, 6);
  EXPECT_EQ(found->query->heads, 4);
  EXPECT_EQ(found->key->heads, 2);

  RmsNormStep of_the_row = query;
  of_the_row.heads = 1;
  EXPECT_EQ(CountAt(with(of_the_row, key), 4), 0u);
  RmsNormStep other_eps = key;
  other_eps.eps = 1e-5f;
  EXPECT_EQ(CountAt(with(query, other_eps), 4), 0u);
  EXPECT_EQ(CountAt(with(key, query), 4), 0u);
}

TEST(StepFusion, AResultIsForTheMatrixThatReadsItNext) {
  std::vector<Step> steps = LlamaAttention();
  EXPECT_EQ(MatrixAfter(steps, 0), TensorIndex{1});
  EXPECT_EQ(MatrixAfter(steps, 6), TensorIndex{4});
  EXPECT_EQ(MatrixAfter(steps, 7), kNoTensor);     // the steps end
  EXPECT_EQ(MatrixAfter(steps, 1), std::nullopt);  // the rotation has it
  EXPECT_EQ(MatrixAfter(steps, 3), std::nullopt);  // the cache has it

  // A step between that reads something else does not matter; one that writes the result does.
  steps.insert(steps.begin() + 1, RmsNormStep{Buffer::kHidden, Buffer::kFfnNormed, 5, 1e-5f});
  EXPECT_EQ(MatrixAfter(steps, 0), TensorIndex{1});
  EXPECT_EQ(MatrixAfter(steps, 1), kNoTensor);
  steps[1] = RmsNormStep{Buffer::kHidden, Buffer::kNormed, 5, 1e-5f};
  EXPECT_EQ(MatrixAfter(steps, 0), std::nullopt);
  EXPECT_EQ(MatrixAfter(steps, 1), TensorIndex{1});
}

TEST(StepFusion, AResidualReadsWhatItAddsTo) {
  const std::vector<Step> steps = {LayerNormStep{Buffer::kHidden, Buffer::kHidden, 0, 1, 1e-5f},
                                   Linear(Buffer::kNormed, Buffer::kHidden, 2, true),
                                   Linear(Buffer::kHidden, Buffer::kGate, 3)};
  EXPECT_EQ(MatrixAfter(steps, 0), std::nullopt);
  EXPECT_EQ(MatrixAfter(steps, 1), TensorIndex{3});
}

TEST(StepFusion, AnActivationInPlaceIsForTheMatrixBehindIt) {
  const std::vector<Step> steps = {
      Linear(Buffer::kNormed, Buffer::kGate, 0), Linear(Buffer::kNormed, Buffer::kUp, 1),
      ActivationStep{Buffer::kGate, Buffer::kUp, Buffer::kGate, Activation::kSilu},
      Linear(Buffer::kGate, Buffer::kHidden, 2, true)};
  EXPECT_EQ(LinearsOfOneInput(steps, 0), 2u);
  EXPECT_EQ(MatrixAfter(steps, 2), TensorIndex{2});
  EXPECT_EQ(MatrixAfter(steps, 0), std::nullopt);
  EXPECT_EQ(MatrixAfter(steps, 1), std::nullopt);
}

}  // namespace
}  // namespace sluice
