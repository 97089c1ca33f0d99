// Attention of draft trees, of every table and the emulated CUDA one: each node against a softmax
// in float64 over the path from the root that its parents say.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "kernels/select.h"
#include "tests/support/attention_scene.h"

namespace sluice {
namespace {

using test::ExactAttention;
using test::kUntouched;
using Exact = test::ExactResult;
using Heads = test::AttentionHeads;
using Scene = test::AttentionScene;
using View = test::AttentionView;

std::vector<int> Chain(int nodes) {
  std::vector<int> parents;
  for (int i = 0; i < nodes; ++i) parents.push_back(i - 1);
  return parents;
}
std::vector<int> Star(int nodes) {
  std::vector<int> parents(static_cast<size_t>(nodes), 0);
  parents[0] = -1;
  return parents;
}
std::vector<int> Forest(int nodes) { return std::vector<int>(static_cast<size_t>(nodes), -1); }
std::vector<int> Binary(int nodes) {
  std::vector<int> parents = {-1};
  for (int i = 1; i < nodes; ++i) parents.push_back((i - 1) / 2);
  return parents;
}
// A chain of the even nodes, each with an odd leaf.
std::vector<int> Comb(int nodes) {
  std::vector<int> parents = {-1};
  for (int i = 1; i < nodes; ++i) parents.push_back(i % 2 == 1 ? i - 1 : i - 2);
  return parents;
}
std::vector<int> Random(int nodes, std::mt19937& random) {
  std::vector<int> parents;
  for (int i = 0; i < nodes; ++i) {
    // Mostly near the newest node, so that paths are long.
    const int from = random() % 4 == 0 ? -1 : std::max(i - 4, -1);
    parents.push_back(from + static_cast<int>(random() % static_cast<unsigned>(i - from)));
  }
  return parents;
}

std::vector<const OpTable*> Tables(const Scene& scene) {
  std::vector<const OpTable*> tables = AvailableTables();
  if (scene.type() == KvType::kF16 && scene.heads().dim <= kGpuMostHeadDim) {
    tables.push_back(&cuda_emulation::kCudaTable);
  }
  return tables;
}

bool SameBits(const float* a, const float* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}
bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && SameBits(a.data(), b.data(), a.size());
}

// The same, but emulated kernels, which take long, with a few views only.
std::vector<const OpTable*> Tables(const Scene& scene, const View& view) {
  std::vector<const OpTable*> tables = Tables(scene);
  const bool none = view.window == 0 && view.softcap == 0 && view.slopes.empty();
  const bool tried = none || view.window == 7 || view.window == 30;
  if (tables.back()->on_device && !tried) tables.pop_back();
  return tables;
}

void ExpectExact(Scene& scene, const View& view, const std::vector<const OpTable*>& tables) {
  const auto heads = static_cast<size_t>(scene.heads().heads);
  const auto dim = static_cast<size_t>(scene.heads().dim);
  std::vector<std::vector<float>> outs;
  for (const OpTable* table : tables) outs.push_back(scene.Attend(*table, view));
  for (size_t t = 0; t < scene.tokens(); ++t) {
    for (size_t head = 0; head < heads; ++head) {
      const Exact exact = ExactAttention(scene, t, head, view);
      for (size_t k = 0; k < tables.size(); ++k) {
        const double bound = tables[k]->on_device ? exact.device_bound : exact.host_bound;
        for (size_t i = 0; i < dim; ++i) {
          const float actual = outs[k][(t * heads + head) * dim + i];
          ASSERT_TRUE(std::fabs(actual - exact.out[i]) <= bound)
              << tables[k]->name << " sequence " << scene.sequence(t) << " slot "
              << scene.path(t).back() << " head " << head << " window " << view.window << ": "
              << actual << ", not " << exact.out[i] << " within " << bound;
        }
      }
    }
  }
}

// With windows that end in the tree, behind it, and in the tokens before it.
std::vector<View> Views(int64_t heads) {
  std::vector<float> slopes;
  for (int64_t i = 0; i < heads; ++i) slopes.push_back(0.75f / static_cast<float>(1 << i));
  return {{},
          {0.3f, 1},
          {0.3f, 2},
          {0.3f, 7, 3.0f},
          {0.3f, 40},
          {0.3f, 0, 5.0f},
          {0.3f, 0, 0, slopes},
          {0.3f, 0, 0, slopes, true},
          {0.3f, 5, 4.0f, slopes},
          {0.3f, 30, 0, slopes, true}};
}

class AttentionTrees : public testing::TestWithParam<KvType> {};

TEST_P(AttentionTrees, EveryNodeSeesItsPathAndNothingElse) {
  std::mt19937 random(41);
  for (const Heads& heads : {Heads{4, 2, 16}, Heads{6, 2, 40}, Heads{8, 1, 24}, Heads{5, 5, 8}}) {
    Scene scene(heads, GetParam(),
                {{0, Random(40, random)},
                 {1, Star(9)},
                 {37, Chain(1), true},
                 {15, Comb(33)},
                 {16, Binary(64)},
                 {20, Chain(30), true},
                 {2, Forest(17)},
                 {31, Chain(3)}},
                random);
    for (const View& view : Views(heads.heads)) {
      const bool all = heads.heads == 4;
      ASSERT_NO_FATAL_FAILURE(ExpectExact(scene, view, all ? Tables(scene) : Tables(scene, view)));
    }
  }
}

// 30 nodes: the CUDA kernel that divides contexts; 64: the one of a prefill.
TEST_P(AttentionTrees, TreesThatCrossBlocksPartitionsAndSplits) {
  std::mt19937 random(42);
  const Heads heads{4, 2, 16};
  for (int nodes : {30, 64}) {
    for (int64_t begin : {241, 255, 256, 480, 500, 511, 512}) {
      Scene scene(heads, GetParam(),
                  {{begin, Random(nodes, random)}, {600, Chain(1), true}, {begin, Comb(20)}},
                  random);
      for (const View& view : Views(heads.heads)) {
        if (view.window != 0 && view.window != 7 && view.window != 30) continue;
        ASSERT_NO_FATAL_FAILURE(ExpectExact(scene, view, Tables(scene, view)));
      }
    }
  }
}

TEST_P(AttentionTrees, HeadsOfEverySize) {
  std::mt19937 random(43);
  for (int64_t dim : {1, 7, 17, 80, 128, 200, 256, 576, 1025}) {
    for (int64_t heads : {1, 6, 12}) {
      Scene scene({heads, 1, dim}, GetParam(), {{14, Random(12, random)}, {5, Star(4)}}, random);
      ASSERT_NO_FATAL_FAILURE(ExpectExact(scene, {0.1f}, Tables(scene)));
    }
  }
}

// And the mask does something: the others differ from tokens that see all slots before their own.
TEST_P(AttentionTrees, NodesOfAChainHaveTheBitsOfTokensWithoutATree) {
  std::mt19937 random(44);
  for (const Heads& heads : {Heads{4, 2, 16}, Heads{9, 3, 20}}) {
    for (int64_t begin : {0, 9, 250, 500}) {
      Scene scene(heads, GetParam(),
                  {{begin, Chain(30)}, {begin, Random(25, random)}, {begin + 3, Chain(1)}}, random);
      for (const View& view : Views(heads.heads)) {
        for (const OpTable* table : Tables(scene, view)) {
          const std::vector<float> trees = scene.Attend(*table, view);
          const std::vector<float> plain = scene.Attend(*table, view, false);
          const size_t width = trees.size() / scene.tokens();
          for (size_t t = 0; t < scene.tokens(); ++t) {
            const bool same = SameBits(trees.data() + t * width, plain.data() + t * width, width);
            if (scene.plain(t)) {
              ASSERT_TRUE(same) << table->name << " slot " << scene.path(t).back() << " window "
                                << view.window;
            } else if (view.window == 0) {
              ASSERT_FALSE(same) << table->name << " slot " << scene.path(t).back();
            }
          }
        }
      }
    }
  }
}

TEST_P(AttentionTrees, AChainOf64NodesIsPlainToo) {
  std::mt19937 random(45);
  Scene scene({4, 2, 16}, GetParam(), {{490, Chain(64)}}, random);
  for (const View& view : Views(4)) {
    for (const OpTable* table : Tables(scene, view)) {
      ASSERT_TRUE(SameBits(scene.Attend(*table, view), scene.Attend(*table, view, false)))
          << table->name;
    }
  }
}

TEST_P(AttentionTrees, ANodesBitsDoNotDependOnTheCall) {
  std::mt19937 random(46);
  for (const Heads& heads : {Heads{4, 2, 16}, Heads{6, 3, 40}}) {
    Scene scene(heads, GetParam(),
                {{500, Random(32, random)}, {20, Comb(21)}, {600, Chain(1), true}}, random);
    for (const View& view : {View{}, View{0.3f, 9}, Views(heads.heads).back()}) {
      for (const OpTable* table : Tables(scene, view)) {
        const std::vector<float> whole = scene.Attend(*table, view);
        for (int64_t range : {1, 7}) {
          if (table->on_device && range == 1) continue;
          ASSERT_TRUE(SameBits(scene.Attend(*table, view, true, range), whole))
              << table->name << " ranges of " << range;
        }
      }
    }
  }
}

TEST_P(AttentionTrees, SplitsHaveTheBitsOfAContextInOneGoAndTablesAgree) {
  std::mt19937 random(47);
  for (const Heads& heads : {Heads{8, 2, 64}, Heads{9, 3, 20}}) {
    Scene scene(heads, GetParam(),
                {{480, Random(64, random)}, {1020, Comb(9)}, {1700, Chain(1), true}, {3, Star(5)}},
                random);
    for (const View& view : Views(heads.heads)) {
      std::vector<float> first;
      for (const OpTable* table : AvailableTables()) {
        if (table->combine_attention == nullptr) continue;
        const std::vector<float> whole = scene.Attend(*table, view);
        if (first.empty()) first = whole;
        ASSERT_TRUE(SameBits(whole, first)) << table->name;
        AttentionArgs args = scene.Args(*table, view);
        const int64_t splits =
            (args.longest_length + kAttentionSplitKeys - 1) / kAttentionSplitKeys;
        std::vector<float> partials(static_cast<size_t>(splits * args.tokens * heads.heads *
                                                        AttentionPartialFloats(heads.dim)) +
                                        16,
                                    std::numeric_limits<float>::quiet_NaN());
        std::vector<float> out(whole.size(), kUntouched);
        args.out = out.data();
        args.partials = partials.data();
        while (reinterpret_cast<uintptr_t>(args.partials) % 64 != 0) ++args.partials;
        const int64_t items = args.item_end;
        for (int64_t begin = 0; begin < splits * items; begin += 11) {
          args.item_begin = begin;
          args.item_end = std::min(splits * items, begin + 11);
          table->attention(args, nullptr);
        }
        args.item_begin = 0;
        args.item_end = items;
        table->combine_attention(args, nullptr);
        ASSERT_TRUE(SameBits(out, whole)) << table->name << " window " << view.window;
      }
    }
  }
}

// The path of each node copied to slots of its own, one after another, and attended to without a
// tree: both within the bound of the exact result.
TEST_P(AttentionTrees, ABranchIsItsPathInConsecutiveSlotsWithinRounding) {
  std::mt19937 random(48);
  const Heads heads{4, 2, 16};
  Scene scene(heads, GetParam(), {{40, Random(64, random)}}, random);
  const View view = {0.3f, 0, 0, {0.5f, 0.25f, 0.125f, 0.0625f}};
  const auto row = static_cast<size_t>(heads.heads * heads.dim);
  for (const OpTable* table : Tables(scene)) {
    const std::vector<float> trees = scene.Attend(*table, view);
    for (size_t t = 0; t < scene.tokens(); t += 7) {
      const std::vector<int64_t>& path = scene.path(t);
      Scene alone(heads, GetParam(), {{static_cast<int64_t>(path.size()) - 1, Chain(1), true}},
                  random);
      const auto width = static_cast<size_t>(scene.Width());
      for (size_t j = 0; j < path.size(); ++j) {
        const auto from = static_cast<ptrdiff_t>(static_cast<size_t>(path[j]) * width);
        const auto to = static_cast<ptrdiff_t>(j * width);
        std::copy_n(scene.keys(0).begin() + from, width, alone.keys(0).begin() + to);
        std::copy_n(scene.values(0).begin() + from, width, alone.values(0).begin() + to);
      }
      std::copy_n(scene.query().begin() + static_cast<ptrdiff_t>(t * row), row,
                  alone.query().begin());
      const std::vector<float> plain = alone.Attend(*table, view, false);
      for (size_t i = 0; i < row; ++i) {
        const Exact exact = ExactAttention(scene, t, i / static_cast<size_t>(heads.dim), view);
        const double bound = 2 * (table->on_device ? exact.device_bound : exact.host_bound);
        ASSERT_TRUE(std::fabs(trees[t * row + i] - plain[i]) <= bound)
            << table->name << " slot " << path.back() << ": " << trees[t * row + i] << ", "
            << plain[i] << ", bound " << bound;
      }
    }
  }
}

// The tensor cores multiply the values of a sibling by a weight of 0, and NaN stays NaN there.
TEST_P(AttentionTrees, ANaNInASiblingDoesNotReachTheOthers) {
  std::mt19937 random(49);
  for (bool in_key : {true, false}) {
    Scene scene({4, 2, 40}, GetParam(), {{30, Binary(20)}}, random);
    std::vector<float>& broken = in_key ? scene.keys(0) : scene.values(0);
    const int64_t slot = 30 + 4;
    for (int64_t i = slot * scene.Width(); i < (slot + 1) * scene.Width(); ++i) {
      broken[static_cast<size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
    }
    for (const OpTable* table : Tables(scene)) {
      if (table->on_device && !in_key) continue;
      const std::vector<float> out = scene.Attend(*table, {});
      for (size_t i = 0; i < out.size(); ++i) {
        const std::vector<int64_t>& path = scene.path(i / 160);
        const bool sees = std::find(path.begin(), path.end(), slot) != path.end();
        ASSERT_EQ(std::isnan(out[i]), sees) << table->name << " slot " << path.back();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionTrees, testing::Values(KvType::kF32, KvType::kF16),
                         [](const testing::TestParamInfo<KvType>& info) {
                           return info.param == KvType::kF32 ? "f32" : "f16";
                         });

TEST(CudaAttentionTrees, TheOrderOfThreadsAndBlocksDoesNotMatter) {
  std::mt19937 random(50);
  for (int nodes : {20, 40}) {
    Scene scene({6, 2, 32}, KvType::kF16, {{250, Random(nodes, random)}, {9, Comb(11)}}, random);
    const OpTable& table = cuda_emulation::kCudaTable;
    const View view = Views(6).back();
    const std::vector<float> expected = scene.Attend(table, view);
    for (cuda_emulation::Order order : cuda_emulation::kAllOrders) {
      cuda_emulation::SetOrder(order);
      EXPECT_TRUE(SameBits(scene.Attend(table, view), expected));
    }
    cuda_emulation::SetOrder(cuda_emulation::Order::kAscending);
  }
}

}  // namespace
}  // namespace sluice
