// The CUDA attention of few tokens, emulated: awkward contexts and shapes against a softmax in
// float64, and what must not change a bit of a result.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "tests/support/attention_scene.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;
using test::AttentionHeads;
using test::AttentionScene;
using test::AttentionView;

// One token of each of as many sequences, which sees so many keys.
std::vector<test::TreeSequence> Decodes(const std::vector<int64_t>& lengths) {
  std::vector<test::TreeSequence> sequences;
  for (int64_t length : lengths) sequences.push_back({length - 1, {-1}, true});
  return sequences;
}

// A run of tokens behind `begin` others.
test::TreeSequence Chain(int64_t begin, int tokens) {
  test::TreeSequence chain = {begin, {}, true};
  for (int i = 0; i < tokens; ++i) chain.parents.push_back(i - 1);
  return chain;
}

std::vector<AttentionView> ManyViews(int64_t heads, int64_t window) {
  std::vector<float> slopes;
  for (int64_t i = 0; i < heads; ++i) slopes.push_back(1.0f / static_cast<float>(2 << i % 8));
  AttentionView windowed;
  windowed.window = window;
  AttentionView biased;
  biased.slopes = slopes;
  AttentionView all = biased;
  all.window = window;
  all.softcap = 4;
  return {{}, windowed, biased, all};
}

// A call whose scratch memory is that of `longest_length`, as a recorded pass has it.
std::vector<float> AttendAsOf(AttentionScene* scene, const AttentionView& view, int64_t longest_run,
                              int64_t longest_length, int64_t tokens_at_once = 1 << 20) {
  AttentionArgs args = scene->Args(kCudaTable, view, false);
  std::vector<float> out(scene->query().size(), test::kUntouched);
  args.out = out.data();
  args.longest_run = longest_run;
  args.longest_length = std::max(args.longest_length, longest_length);
  std::vector<float> scratch(static_cast<size_t>(
      GpuAttentionScratch(std::min<int64_t>(args.tokens, tokens_at_once), scene->heads().heads,
                          scene->heads().dim, args.longest_length)));
  args.scratch = scratch.data();
  args.scratch_size = static_cast<int64_t>(scratch.size());
  kCudaTable.attention(args, nullptr);
  const auto counters =
      static_cast<ptrdiff_t>(std::min<int64_t>(args.scratch_size, kGpuAttentionCounters));
  // As zeros, which floats of small integers would not be to the bit.
  EXPECT_TRUE(std::all_of(scratch.begin(), scratch.begin() + counters,
                          [](float counter) { return cuda_emulation::BitsOfFloat(counter) == 0; }));
  return out;
}

void ExpectExact(AttentionScene* scene, const AttentionView& view) {
  const std::vector<float> out = scene->Attend(kCudaTable, view, false);
  const auto dim = static_cast<size_t>(scene->heads().dim);
  const auto heads = static_cast<size_t>(scene->heads().heads);
  for (size_t t = 0; t < scene->tokens(); ++t) {
    // Of many heads of a KV head some; the first and the last of a tile of columns among them.
    for (size_t head = 0; head<heads; head += heads> 20 ? 5 : 1) {
      const test::ExactResult exact = test::ExactAttention(*scene, t, head, view);
      for (size_t i = 0; i < dim; ++i) {
        const float actual = out[(t * heads + head) * dim + i];
        ASSERT_TRUE(std::fabs(actual - exact.out[i]) <= exact.device_bound)
            << "heads " << heads << " dim " << dim << " length " << scene->path(t).size()
            << " head " << head << ": " << actual << ", not " << exact.out[i] << " within "
            << exact.device_bound;
      }
    }
  }
}

TEST(CudaDecodeAttention, ContextsAroundTilesAndPartitions) {
  std::mt19937 random(21);
  for (const AttentionHeads& heads :
       {AttentionHeads{1, 1, 64}, AttentionHeads{3, 1, 80}, AttentionHeads{4, 1, 128},
        AttentionHeads{7, 1, 96}, AttentionHeads{8, 1, 256}, AttentionHeads{71, 1, 64},
        AttentionHeads{10, 2, 50}}) {
    AttentionScene scene(heads, KvType::kF16, Decodes({1, 15, 16, 17, 64, 65, 255, 256, 257, 513}),
                         random);
    ASSERT_NO_FATAL_FAILURE(ExpectExact(&scene, {}));
  }
}

TEST(CudaDecodeAttention, ALongContextWithAndWithoutAWindow) {
  std::mt19937 random(22);
  for (const AttentionHeads& heads : {AttentionHeads{4, 1, 64}, AttentionHeads{1, 1, 128}}) {
    AttentionScene scene(heads, KvType::kF16, Decodes({4095}), random);
    for (int64_t window : {0, 1, 255, 257, 700}) {
      AttentionView view;
      view.window = window;
      ASSERT_NO_FATAL_FAILURE(ExpectExact(&scene, view));
    }
  }
}

TEST(CudaDecodeAttention, RunsThatAreVerifiedTogether) {
  std::mt19937 random(23);
  for (const AttentionHeads& heads : {AttentionHeads{4, 1, 128}, AttentionHeads{6, 2, 64}}) {
    AttentionScene scene(heads, KvType::kF16,
                         {Chain(250, 12), Chain(0, 5), Chain(511, 2), Chain(30, 1)}, random);
    for (const AttentionView& view : ManyViews(heads.heads, 20)) {
      ASSERT_NO_FATAL_FAILURE(ExpectExact(&scene, view));
    }
  }
}

// Few queries lie in one tile of columns, more in several: by the run that a call is told of.
TEST(CudaDecodeAttention, ABitDoesNotDependOnTheColumnsOfACall) {
  std::mt19937 random(24);
  for (const AttentionHeads& heads :
       {AttentionHeads{3, 1, 64}, AttentionHeads{4, 1, 128}, AttentionHeads{2, 1, 136}}) {
    AttentionScene scene(heads, KvType::kF16, Decodes({300, 17, 256, 5}), random);
    for (const AttentionView& view : {AttentionView{}, ManyViews(heads.heads, 270).back()}) {
      const std::vector<float> expected = AttendAsOf(&scene, view, 1, 0);
      for (int64_t run : {2, 5}) {
        EXPECT_EQ(AttendAsOf(&scene, view, run, 0), expected) << "dim " << heads.dim << " " << run;
      }
    }
  }
}

TEST(CudaDecodeAttention, ABitDoesNotDependOnEmptyPartitionsOrTheScratchMemory) {
  std::mt19937 random(25);
  AttentionScene scene({4, 2, 64}, KvType::kF16,
                       {Chain(250, 9), Chain(600, 1), Chain(3, 1), Chain(255, 2)}, random);
  for (const AttentionView& view : {AttentionView{}, ManyViews(4, 100).back()}) {
    const std::vector<float> expected = AttendAsOf(&scene, view, 9, 0);
    for (int64_t longest : {1024, 2048}) {
      EXPECT_EQ(AttendAsOf(&scene, view, 9, longest), expected) << longest;
    }
    for (int64_t at_once : {1, 4}) {
      EXPECT_EQ(AttendAsOf(&scene, view, 9, 1024, at_once), expected) << at_once;
    }
  }
}

TEST(CudaDecodeAttention, TheLastBlockMayBeAnyOne) {
  std::mt19937 random(26);
  for (const AttentionHeads& heads : {AttentionHeads{8, 2, 64}, AttentionHeads{9, 1, 128}}) {
    AttentionScene scene(heads, KvType::kF16, {Chain(700, 2), Chain(300, 1)}, random);
    const std::vector<float> expected = AttendAsOf(&scene, {}, 2, 1024);
    for (Order order : cuda_emulation::kAllOrders) {
      for (int i = 0; i < (order == Order::kShuffled ? 3 : 1); ++i) {
        SetOrder(order);
        EXPECT_EQ(AttendAsOf(&scene, {}, 2, 1024), expected);
      }
    }
    SetOrder(Order::kAscending);
  }
}

// Falcon's 71 heads of one KV head, and more heads than there are counters.
TEST(CudaDecodeAttention, ManyHeadsOfOneKvHead) {
  std::mt19937 random(27);
  AttentionScene falcon({71, 1, 64}, KvType::kF16, {Chain(290, 2)}, random);
  ASSERT_NO_FATAL_FAILURE(ExpectExact(&falcon, {}));
  constexpr int64_t kHeads = kGpuAttentionCounters + 3;
  AttentionScene scene({kHeads, 1, 1}, KvType::kF16, Decodes({260}), random);
  const std::vector<float> out = scene.Attend(kCudaTable, {}, false);
  for (size_t head : {size_t{0}, size_t{16}, static_cast<size_t>(kHeads - 1)}) {
    const test::ExactResult exact = test::ExactAttention(scene, 0, head, {});
    EXPECT_TRUE(std::fabs(out[head] - exact.out[0]) <= exact.device_bound) << head;
  }
}

TEST(CudaDecodeAttention, ANaNAmongTheScoresOfAPartitionReachesTheResult) {
  std::mt19937 random(28);
  AttentionScene scene({2, 1, 16}, KvType::kF16, Decodes({600, 600}), random);
  scene.keys(0)[300 * 16] = std::nanf("");
  const std::vector<float> out = AttendAsOf(&scene, {}, 1, 0);
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i < 32) << i;
}

}  // namespace
}  // namespace sluice
