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

#include "formats/half.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "kernels/select.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr float kUntouched = -77.0f;

struct Heads {
  int64_t heads, kv_heads, dim;
};

struct View {
  float scale = 0.3f;
  int64_t window = 0;
  float softcap = 0;
  std::vector<float> slopes = {};
  bool bf16 = false;
};

// `begin` tokens in the cache, followed by nodes with these parents (-1: the last of those tokens).
struct Sequence {
  int64_t begin;
  std::vector<int> parents;
  bool plain = false;  // a chain that is given as tokens without a tree
};

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

// The nodes of all sequences as the tokens of a call, over a cache that is NaN elsewhere.
class Scene {
 public:
  Scene(const Heads& heads, KvType type, std::vector<Sequence> sequences, std::mt19937& random)
      : heads_(heads), sequences_(std::move(sequences)) {
    int64_t blocks = 2;
    for (const Sequence& s : sequences_) blocks += (Slots(s) + 15) / 16;
    const int64_t block_bytes = heads.kv_heads * 2 * 16 * heads.dim * KvTypeBytes(type) + 64;
    bytes_.assign(static_cast<size_t>(blocks * block_bytes), std::byte{0xff});
    layer_ = {bytes_.data(), block_bytes, type, heads.kv_heads, heads.dim};
    std::vector<uint32_t> ids;
    for (int64_t i = 0; i < blocks; ++i) ids.push_back(static_cast<uint32_t>(i));
    std::shuffle(ids.begin(), ids.end(), random);
    auto next = ids.begin();
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const int64_t slots = Slots(sequences_[i]);
      tables_.emplace_back(next, next + (slots + 15) / 16);
      next += (slots + 15) / 16;
      const auto size = static_cast<size_t>(slots * Width());
      keys_.push_back(test::RandomFloats(size, random));
      values_.push_back(test::RandomFloats(size, random));
    }
    for (size_t i = 0; i < sequences_.size(); ++i) AddTokens(i);
    query_ =
        test::RandomFloats(tokens_.size() * static_cast<size_t>(heads.heads * heads.dim), random);
  }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;

  size_t tokens() const { return tokens_.size(); }
  const Heads& heads() const { return heads_; }
  KvType type() const { return layer_.type; }
  // Slots of the token's path from the beginning of its sequence; each stands at the position of
  // its place here.
  const std::vector<int64_t>& path(size_t token) const { return tokens_[token].path; }
  size_t sequence(size_t token) const { return tokens_[token].sequence; }
  // Whether its ancestors are all nodes before it.
  bool plain(size_t token) const {
    return path(token).size() == static_cast<size_t>(path(token).back() + 1);
  }
  std::vector<float>& keys(size_t sequence) { return keys_[sequence]; }
  std::vector<float>& values(size_t sequence) { return values_[sequence]; }
  std::vector<float>& query() { return query_; }
  int64_t Width() const { return heads_.kv_heads * heads_.dim; }
  double Stored(float value) const {
    return layer_.type == KvType::kF32 ? value : F16ToFloat(FloatToF16(value));
  }

  // Writes keys and values by that table and returns arguments for all tokens; `with_trees` false:
  // as if each token saw all slots before its own.
  AttentionArgs Args(const OpTable& table, const View& view, bool with_trees = true) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      std::vector<int64_t> slots;
      for (int64_t j = 0; j < Slots(sequences_[i]); ++j) {
        slots.push_back(int64_t{tables_[i][static_cast<size_t>(j / 16)]} * 16 + j % 16);
      }
      table.store_kv({keys_[i].data(), values_[i].data(), Width(), layer_, slots.data(), 0,
                      Slots(sequences_[i])},
                     nullptr);
    }
    AttentionArgs args = {};
    args.query = query_.data();
    args.query_stride = args.out_stride = heads_.heads * heads_.dim;
    args.num_heads = heads_.heads;
    args.layer = layer_;
    args.block_tables = block_tables_.data();
    args.lengths = lengths_.data();
    args.window = view.window;
    args.scale = view.scale;
    args.softcap = view.softcap;
    args.slopes = view.slopes.empty() ? nullptr : view.slopes.data();
    args.slopes_in_bf16 = view.bf16;
    args.tokens = static_cast<int64_t>(tokens());
    args.item_end = args.tokens * heads_.kv_heads;
    args.longest_length = *std::max_element(lengths_.begin(), lengths_.end());
    for (const Sequence& s : sequences_) {
      args.longest_run = std::max(args.longest_run, static_cast<int64_t>(s.parents.size()));
    }
    if (table.on_device) {
      scratch_.resize(static_cast<size_t>(
          GpuAttentionScratch(args.tokens, heads_.heads, heads_.dim, args.longest_length)));
      args.scratch = scratch_.data();
      args.scratch_size = static_cast<int64_t>(scratch_.size());
    }
    if (with_trees) {
      args.tree_begin = tree_begins_.data();
      args.ancestors = ancestors_.data();
    }
    return args;
  }

  // By ranges of that many items.
  std::vector<float> Attend(const OpTable& table, const View& view, bool with_trees = true,
                            int64_t range = 1 << 20) {
    AttentionArgs args = Args(table, view, with_trees);
    std::vector<float> out(query_.size(), kUntouched);
    args.out = out.data();
    const int64_t items = args.item_end;
    for (args.item_begin = 0; args.item_begin < items; args.item_begin += range) {
      args.item_end = std::min(items, args.item_begin + range);
      table.attention(args, nullptr);
    }
    return out;
  }

 private:
  struct Token {
    size_t sequence;
    std::vector<int64_t> path;
  };

  static int64_t Slots(const Sequence& s) {
    return s.begin + static_cast<int64_t>(s.parents.size());
  }

  void AddTokens(size_t sequence) {
    const Sequence& s = sequences_[sequence];
    for (int node = 0; node < static_cast<int>(s.parents.size()); ++node) {
      std::vector<int64_t> path;
      uint64_t ancestors = 0;
      for (int i = node; i >= 0; i = s.parents[static_cast<size_t>(i)]) {
        path.push_back(s.begin + i);
        if (i < 64) ancestors |= uint64_t{1} << i;
      }
      for (int64_t slot = s.begin; slot-- > 0;) path.push_back(slot);
      std::reverse(path.begin(), path.end());
      lengths_.push_back(s.begin + node + 1);
      tree_begins_.push_back(s.plain ? lengths_.back() : s.begin);
      ancestors_.push_back(s.plain ? 0 : ancestors);
      block_tables_.push_back(tables_[sequence].data());
      tokens_.push_back({sequence, std::move(path)});
    }
  }

  Heads heads_;
  std::vector<Sequence> sequences_;
  KvLayer layer_;
  std::vector<std::byte> bytes_;
  std::vector<std::vector<uint32_t>> tables_;
  std::vector<std::vector<float>> keys_, values_;  // [slots, width] of each sequence
  std::vector<Token> tokens_;
  std::vector<int64_t> lengths_, tree_begins_;
  std::vector<uint64_t> ancestors_;
  std::vector<const uint32_t*> block_tables_;
  std::vector<float> query_, scratch_;
};

// REQUIRES: with bf16, slopes that are numbers in bfloat16, so that the products are exact.
double Bias(const View& view, size_t head, int64_t key, int64_t own) {
  if (view.slopes.empty()) return 0;
  const float slope = view.slopes[head];
  if (!view.bf16) return slope * static_cast<double>(key - own);
  const auto rounded = [](float value) { return Bf16ToFloat(FloatToBf16(value)); };
  const auto product = [&](int64_t index) {
    return double{rounded(slope * rounded(static_cast<float>(index)))};
  };
  return view.scale * (product(key) - product(own));
}

struct Exact {
  std::vector<double> out;
  double host_bound, device_bound;
};

// The bounds are those of attention_test.cc and cuda_attention_test.cc.
Exact ExactAttention(Scene& scene, size_t token, size_t head, const View& view) {
  const Heads& heads = scene.heads();
  const std::vector<int64_t>& path = scene.path(token);
  const std::vector<float>& keys = scene.keys(scene.sequence(token));
  const std::vector<float>& values = scene.values(scene.sequence(token));
  const auto kv_head = static_cast<int64_t>(head) / (heads.heads / heads.kv_heads);
  const float* query =
      scene.query().data() +
      (static_cast<int64_t>(token) * heads.heads + static_cast<int64_t>(head)) * heads.dim;
  const auto length = static_cast<int64_t>(path.size());
  const int64_t oldest = view.window == 0 ? 0 : std::max<int64_t>(length - view.window, 0);
  const auto at = [&](int64_t position, int64_t i) {
    return static_cast<size_t>(path[static_cast<size_t>(position)] * scene.Width() +
                               kv_head * heads.dim + i);
  };
  const auto dim = static_cast<double>(heads.dim);
  std::vector<double> scores;
  double host = 0;  // errors of a score
  double device = 0;
  double bias_error = 0;
  for (int64_t j = oldest; j < length; ++j) {
    double dot = 0;
    double magnitude = 0;
    double of_keys = 0;
    for (int64_t i = 0; i < heads.dim; ++i) {
      const double key = scene.Stored(keys[at(j, i)]);
      dot += query[i] * key;
      magnitude += std::fabs(query[i] * key);
      of_keys += std::fabs(key);
    }
    const double bias = Bias(view, head, j, length - 1);
    const double score = view.scale * dot + bias;
    scores.push_back(view.softcap == 0 ? score : view.softcap * std::tanh(score / view.softcap));
    host = std::max(host, view.scale * magnitude * (dim + 2) * kEpsilon +
                              std::fabs(view.scale * dot) * 2 * kEpsilon);
    device = std::max(device, view.scale * magnitude *
                                      (0x1p-22 + 4 * kEpsilon + (dim / 8 * 2 + 2) * 2 * kEpsilon) +
                                  of_keys * 0x1p-24);
    bias_error = std::max(bias_error, 4 * std::min(std::fabs(bias), 200.0) * kEpsilon);
  }
  host += bias_error + 8 * view.softcap * kEpsilon;
  device += bias_error + 8 * view.softcap * kEpsilon;
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += (score = std::exp(score - largest));
  Exact exact = {std::vector<double>(static_cast<size_t>(heads.dim)), 0, 0};
  double largest_value = 0;
  for (int64_t j = oldest; j < length; ++j) {
    for (int64_t i = 0; i < heads.dim; ++i) {
      const double value = scene.Stored(values[at(j, i)]);
      largest_value = std::max(largest_value, std::fabs(value));
      exact.out[static_cast<size_t>(i)] += scores[static_cast<size_t>(j - oldest)] / sum * value;
    }
  }
  const auto count = static_cast<double>(length - oldest);
  exact.host_bound =
      2 * largest_value * (std::expm1(2 * host + 104 * kEpsilon) + (1.2 * count + 16) * kEpsilon);
  exact.device_bound = largest_value * (2 * std::expm1(2 * device + 150 * kEpsilon) + 0x1p-22 +
                                        count * 0x1p-25 + (count / 2 + 16) * 4 * kEpsilon);
  return exact;
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

// NaN among the values of one node: its descendants see it, the others keep their bits.
TEST_P(AttentionTrees, AValueThatIsNotANumberReachesOnlyTheDescendants) {
  std::mt19937 random(49);
  for (int nodes : {20, 50}) {
    Scene scene({4, 2, 16}, GetParam(), {{9, Random(nodes, random)}, {21, Comb(12)}}, random);
    for (const OpTable* table : Tables(scene)) {
      const std::vector<float> before = scene.Attend(*table, {});
      const size_t width = before.size() / scene.tokens();
      for (int64_t slot : {4, 9, 12, 17, 28}) {
        const auto first = scene.values(0).begin() + slot * scene.Width();
        const std::vector<float> good(first, first + scene.Width());
        std::fill_n(first, scene.Width(), std::numeric_limits<float>::quiet_NaN());
        const std::vector<float> after = scene.Attend(*table, {});
        std::copy(good.begin(), good.end(), first);
        for (size_t t = 0; t < scene.tokens(); ++t) {
          const std::vector<int64_t>& path = scene.path(t);
          const bool sees =
              scene.sequence(t) == 0 && std::find(path.begin(), path.end(), slot) != path.end();
          if (sees) {
            ASSERT_TRUE(std::isnan(after[t * width])) << table->name << " slot " << path.back();
          } else {
            ASSERT_TRUE(SameBits(after.data() + t * width, before.data() + t * width, width))
                << table->name << " slot " << path.back() << " of sequence " << scene.sequence(t);
          }
        }
      }
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
