// A pass over a draft tree: every node's logits are those of its path decoded token by token, and
// decoding goes on behind a path that was kept as if it had been decoded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "runtime/draft_tree.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/cuda_emulation/model_runner.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using Model = test::ModelRunner;
using test::DistanceOf;

// Long paths, so that windows end among the nodes, and siblings at every depth.
DraftTree RandomTree(int nodes, const std::vector<int32_t>& ids, std::mt19937& random) {
  DraftTree tree;
  for (int i = 0; i < nodes; ++i) {
    tree.ids.push_back(ids[random() % ids.size()]);
    const int from = std::max(i - 3, -1);
    tree.parents.push_back(from + static_cast<int>(random() % static_cast<unsigned>(i - from)));
  }
  return tree;
}

// A prompt, a tree behind it, the path of one of its nodes, and what is said after that.
struct Story {
  std::vector<int32_t> prompt, after;
  DraftTree tree;
  int64_t kept;
};

Story StoryOf(const testing::GoldenModel& golden, int nodes) {
  std::mt19937 random(static_cast<uint32_t>(nodes));
  Story story;
  const std::vector<int32_t>& ids = golden.tokens[0];
  story.prompt.assign(ids.begin(), ids.begin() + 29);
  story.tree = RandomTree(nodes, ids, random);
  story.after.assign(ids.begin() + 60, ids.begin() + 66);
  story.kept = nodes - 1;
  return story;
}

void Extend(std::vector<float>* all, const std::vector<float>& more) {
  all->insert(all->end(), more.begin(), more.end());
}

// Logits of all nodes, then of what follows the kept path; `masked` false: as if the nodes were a
// chain.
std::vector<float> InATree(Model& model, const Story& story, bool masked = true) {
  model.Append(0, story.prompt);
  DraftTree tree = story.tree;
  if (!masked) {
    for (size_t i = 0; i < tree.parents.size(); ++i) {
      tree.parents[i] = static_cast<int32_t>(i) - 1;
    }
  }
  std::vector<float> logits = model.Verify(0, tree);
  model.Keep(0, story.tree, story.kept);
  for (int32_t id : story.after) Extend(&logits, model.Append(0, {id}));
  return logits;
}

// The same by plain decoding: into the depth of the tree first, so that a node's path is in the
// cache when it comes.
std::vector<float> TokenByToken(Model& model, const Story& story) {
  model.Append(0, story.prompt);
  const int64_t length = model.length(0);
  const auto decode = [&](int64_t node) {
    const auto depth = static_cast<int64_t>(PathTo(story.tree, node).size()) - 1;
    model.set_length(0, length + depth);
    return model.Append(0, {story.tree.ids[static_cast<size_t>(node)]});
  };
  std::vector<std::vector<float>> of_node(story.tree.ids.size());
  std::vector<int64_t> next;
  const auto add_children = [&](int64_t node) {
    for (size_t i = 0; i < of_node.size(); ++i) {
      if (story.tree.parents[i] == node) next.push_back(static_cast<int64_t>(i));
    }
  };
  for (add_children(-1); !next.empty();) {
    const int64_t node = next.back();
    next.pop_back();
    of_node[static_cast<size_t>(node)] = decode(node);
    add_children(node);
  }
  std::vector<float> logits;
  for (const std::vector<float>& some : of_node) Extend(&logits, some);
  for (int64_t node : PathTo(story.tree, story.kept)) decode(node);
  for (int32_t id : story.after) Extend(&logits, model.Append(0, {id}));
  return logits;
}

double LargestOf(const std::vector<float>& values) {
  double largest = 0;
  for (float value : values) largest = std::max(largest, std::fabs(double{value}));
  return largest;
}

// With windows, soft caps, learned positions and ALiBi among them.
std::vector<std::string> Models() {
  return {"gqa",
          "mqa",
          "architectures/gemma2",
          "architectures/gemma3",
          "architectures/mistral",
          "architectures/opt",
          "architectures/bloom",
          "architectures/mpt",
          "architectures/falcon_alibi",
          "architectures/phi3_long"};
}

class TreeForward : public ::testing::TestWithParam<std::string> {};

// Float weights and a float cache round nothing to a grid: what is left is that sums of float32
// are taken in another order, a few epsilons of the logits in each layer.
TEST_P(TreeForward, NodesHaveTheLogitsOfTheirPathsInFloat32) {
  constexpr double kTolerance = 4e-6;  // of the largest logit
  const testing::GoldenModel golden = testing::LoadGolden(GetParam());
  const ScratchDirectory folder;
  const std::string path = testing::ConvertGolden(golden, "keep", folder / "model.sluice");
  for (const int nodes : {2, 23, 64}) {
    const Story story = StoryOf(golden, nodes);
    for (const OpTable* table : AvailableTables()) {
      Model in_tree(path, *table, KvType::kF32);
      Model alone(path, *table, KvType::kF32);
      Model unmasked(path, *table, KvType::kF32);
      const std::vector<float> expected = TokenByToken(alone, story);
      const double bound = kTolerance * LargestOf(expected);
      const test::LogitsDistance distance = DistanceOf(InATree(in_tree, story), expected);
      EXPECT_TRUE(distance.largest <= bound)
          << table->name << " " << nodes << " nodes: " << distance.largest << ", bound " << bound;
      RecordProperty(std::string(table->name) + "_" + std::to_string(nodes) + "_millionths",
                     std::to_string(1e6 * distance.largest / LargestOf(expected)));
      if (nodes == 2) continue;  // may be a chain
      EXPECT_GT(DistanceOf(InATree(unmasked, story, false), expected).root_mean_square, 10 * bound)
          << "siblings that are seen would not be noticed";
    }
  }
}

// Where values are rounded to a grid (the f16 of the cache, the int8 of activations), the last bit
// of a float decides between neighbours. So logits are held against those of `ref` without such
// rounding: a tree's may be as far from them as those of its paths, token by token.
void ExpectAsGoodAsTokenByToken(const testing::GoldenModel& golden, const std::string& quantization,
                                const OpTable& table, int nodes) {
  const ScratchDirectory folder;
  const std::string path = testing::ConvertGolden(golden, quantization, folder / "model.sluice");
  const Story story = StoryOf(golden, nodes);
  Model reference(path, kRefTable, KvType::kF32);
  const std::vector<float> exact = TokenByToken(reference, story);
  Model alone(path, table, KvType::kF16);
  const test::LogitsDistance of_paths = DistanceOf(TokenByToken(alone, story), exact);
  Model in_tree(path, table, KvType::kF16);
  const test::LogitsDistance of_tree = DistanceOf(InATree(in_tree, story), exact);
  EXPECT_TRUE(of_tree.root_mean_square <= 1.25 * of_paths.root_mean_square)
      << table.name << ": " << of_tree.root_mean_square << ", paths " << of_paths.root_mean_square;
  EXPECT_TRUE(of_tree.largest <= 2 * of_paths.largest)
      << table.name << ": " << of_tree.largest << ", paths " << of_paths.largest;
  Model unmasked(path, table, KvType::kF16);
  EXPECT_GT(DistanceOf(InATree(unmasked, story, false), exact).root_mean_square,
            1.25 * of_paths.root_mean_square)
      << "siblings that are seen would not be noticed";
}

TEST_P(TreeForward, NodesAreAsGoodAsTheirPathsWithInt8ActivationsAndAnF16Cache) {
  const testing::GoldenModel golden = testing::LoadGolden(GetParam());
  for (const OpTable* table : AvailableTables()) {
    ExpectAsGoodAsTokenByToken(golden, "int4", *table, 23);
  }
}

// 40 nodes: the attention of a prefill, once, since it is emulated.
TEST_P(TreeForward, NodesAreAsGoodAsTheirPathsOnAGpu) {
  const testing::GoldenModel golden = testing::LoadGolden(GetParam());
  ExpectAsGoodAsTokenByToken(golden, "keep", test::EmulatedGpu::table(),
                             GetParam() == "gqa" ? 40 : 23);
}

INSTANTIATE_TEST_SUITE_P(Models, TreeForward, ::testing::ValuesIn(Models()), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
});

class TreeBatches : public ::testing::Test {
 protected:
  void SetUp() override {
    golden_ = testing::LoadGolden("gqa");
    path_ = testing::ConvertGolden(golden_, "int4", folder_ / "model.sluice");
    story_ = StoryOf(golden_, 23);
    const std::vector<int32_t>& ids = golden_.tokens[1];
    other_.assign(ids.begin(), ids.begin() + 20);
  }

  bool SameBits(const std::vector<float>& a, size_t at, const std::vector<float>& b) const {
    return at + b.size() <= a.size() &&
           std::memcmp(a.data() + at, b.data(), b.size() * sizeof(float)) == 0;
  }

  ScratchDirectory folder_;
  testing::GoldenModel golden_;
  std::string path_;
  Story story_;
  std::vector<int32_t> other_;
};

TEST_F(TreeBatches, ATreeAndOtherSequencesInOnePassChangeNothing) {
  std::vector<const OpTable*> tables = AvailableTables();
  tables.push_back(&test::EmulatedGpu::table());
  for (const OpTable* table : tables) {
    Model alone(path_, *table, KvType::kF16);
    alone.Append(0, story_.prompt);
    const std::vector<float> tree = alone.Verify(0, story_.tree);
    const std::vector<float> other = alone.Append(1, other_);
    for (const bool tree_first : {true, false}) {
      Model together(path_, *table, KvType::kF16);
      together.Append(0, story_.prompt);
      Batch batch;
      if (tree_first) together.AddTree(0, story_.tree, &batch);
      together.Add(1, other_, &batch);
      if (!tree_first) together.AddTree(0, story_.tree, &batch);
      const std::vector<float> both = together.Run(batch);
      EXPECT_TRUE(SameBits(both, tree_first ? 0 : other.size(), tree)) << table->name;
      EXPECT_TRUE(SameBits(both, tree_first ? tree.size() : 0, other)) << table->name;
    }
  }
}

TEST_F(TreeBatches, AnyNumberOfThreadsGivesTheSameBits) {
  for (const OpTable* table : AvailableTables()) {
    std::vector<float> expected;
    for (const int threads : {1, 2, 3}) {
      Model model(path_, *table, KvType::kF16, threads);
      const std::vector<float> logits = InATree(model, story_);
      if (threads == 1) expected = logits;
      EXPECT_TRUE(SameBits(logits, 0, expected)) << table->name << " " << threads;
    }
  }
}

// One token of each sequence is what is recorded, but not where it is in a tree.
TEST_F(TreeBatches, ANodeOfALaterPassIsNotTakenForAStepThatWasRecorded) {
  Model model(path_, test::EmulatedGpu::table(), KvType::kF16);
  for (int32_t id : story_.prompt) model.Append(0, {id});
  const int64_t launches = model.device().graph_launches();
  EXPECT_GT(launches, 10);
  const std::vector<float> all = model.Verify(0, story_.tree);
  Batch batch;
  model.AddTree(0, story_.tree, &batch);
  size_t node = batch.ids.size() - 1;
  while (batch.ancestors[node] == (uint64_t{2} << node) - 1) --node;
  Batch one;
  one.ids = {batch.ids[node]};
  one.positions = {batch.positions[node]};
  one.slots = {batch.slots[node]};
  one.lengths = {batch.lengths[node]};
  one.block_tables = {batch.block_tables[node]};
  one.tree_begins = {batch.tree_begins[node]};
  one.ancestors = {batch.ancestors[node]};
  one.wanted = {0};
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(SameBits(all, node * static_cast<size_t>(golden_.vocab), model.Run(one)));
  }
  EXPECT_EQ(model.device().graph_launches(), launches);
  one.ancestors[0] <<= 1;  // a node that is not the token's
  model.Run(one);
  EXPECT_THAT(model.gpu().TakeProblems(), ::testing::Contains("attention: a tree is wrong"));
}

TEST_F(TreeBatches, TreesOfSomeTokensOnlyAreRefused) {
  Model model(path_, kRefTable, KvType::kF16);
  Batch batch;
  model.AddTree(0, story_.tree, &batch);
  batch.ancestors.pop_back();
  EXPECT_EQ(model.forward().Run(batch, nullptr).code(), ErrorCode::kInvalidArgument);
  batch.ancestors.push_back(0);
  batch.tree_begins.push_back(0);
  EXPECT_EQ(model.forward().Run(batch, nullptr).code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
