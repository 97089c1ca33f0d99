// Draft trees over a paged cache, as tests of attention need them, and what is right for a node: a
// softmax in float64 over the path from the root that its parents say.
#ifndef SLUICE_TESTS_SUPPORT_ATTENTION_SCENE_H_
#define SLUICE_TESTS_SUPPORT_ATTENTION_SCENE_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/ops.h"

namespace sluice::test {

constexpr float kUntouched = -77.0f;  // what an output is before it is written

struct AttentionHeads {
  int64_t heads, kv_heads, dim;
};

struct AttentionView {
  float scale = 0.3f;
  int64_t window = 0;
  float softcap = 0;
  std::vector<float> slopes = {};
  bool bf16 = false;
};

// `begin` tokens in the cache, followed by nodes with these parents (-1: the last of those tokens).
struct TreeSequence {
  int64_t begin;
  std::vector<int> parents;
  bool plain = false;  // a chain that is given as tokens without a tree
};

// The nodes of all sequences as the tokens of a call, over a cache that is NaN elsewhere.
class AttentionScene {
 public:
  AttentionScene(const AttentionHeads& heads, KvType type, std::vector<TreeSequence> sequences,
                 std::mt19937& random);
  AttentionScene(const AttentionScene&) = delete;
  AttentionScene& operator=(const AttentionScene&) = delete;

  size_t tokens() const { return tokens_.size(); }
  const AttentionHeads& heads() const { return heads_; }
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
  AttentionArgs Args(const OpTable& table, const AttentionView& view, bool with_trees = true);

  // By ranges of that many items.
  std::vector<float> Attend(const OpTable& table, const AttentionView& view, bool with_trees = true,
                            int64_t range = 1 << 20);

 private:
  struct Token {
    size_t sequence;
    std::vector<int64_t> path;
  };

  static int64_t Slots(const TreeSequence& s) {
    return s.begin + static_cast<int64_t>(s.parents.size());
  }

  void AddTokens(size_t sequence);

  AttentionHeads heads_;
  std::vector<TreeSequence> sequences_;
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

struct ExactResult {
  std::vector<double> out;
  double host_bound, device_bound;
};

// For a token and a query head. The bounds are those of attention_test.cc and
// cuda_attention_test.cc. REQUIRES: with bf16, slopes that are numbers in bfloat16, so that the
// products are exact.
ExactResult ExactAttention(AttentionScene& scene, size_t token, size_t head,
                           const AttentionView& view);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_ATTENTION_SCENE_H_
