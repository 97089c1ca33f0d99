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

TEST(StepFusion, OnlyRotationsOfTheAttentionThatFollowsGoWithIt) {
  const std::vector<Step> steps = LlamaAttention();
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(RotatesForAttention(steps, i), i == 4) << i;

  std::vector<Step> keys_first = steps;
  std::swap(keys_first[4], keys_first[5]);
  EXPECT_FALSE(RotatesForAttention(keys_first, 4));

  std::vector<Step> no_attention = steps;
  no_attention.resize(6);
  EXPECT_FALSE(RotatesForAttention(no_attention, 4));

  std::vector<Step> other_heads = steps;
  other_heads[5] = RopeStep{Buffer::kKey, 1, 8, 0};
  EXPECT_FALSE(RotatesForAttention(other_heads, 4));
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
