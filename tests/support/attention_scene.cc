#include "tests/support/attention_scene.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cuda/support.h"
#include "tests/support/weight_matrix.h"

namespace sluice::test {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

double Bias(const AttentionView& view, size_t head, int64_t key, int64_t own) {
  if (view.slopes.empty()) return 0;
  const float slope = view.slopes[head];
  if (!view.bf16) return slope * static_cast<double>(key - own);
  const auto rounded = [](float value) { return Bf16ToFloat(FloatToBf16(value)); };
  const auto product = [&](int64_t index) {
    return double{rounded(slope * rounded(static_cast<float>(index)))};
  };
  return view.scale * (product(key) - product(own));
}

}  // namespace

AttentionScene::AttentionScene(const AttentionHeads& heads, KvType type,
                               std::vector<TreeSequence> sequences, std::mt19937& random)
    : heads_(heads), sequences_(std::move(sequences)) {
  int64_t blocks = 2;
  for (const TreeSequence& s : sequences_) blocks += (Slots(s) + 15) / 16;
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
    keys_.push_back(RandomFloats(size, random));
    values_.push_back(RandomFloats(size, random));
  }
  for (size_t i = 0; i < sequences_.size(); ++i) AddTokens(i);
  query_ = RandomFloats(tokens_.size() * static_cast<size_t>(heads.heads * heads.dim), random);
}

AttentionArgs AttentionScene::Args(const OpTable& table, const AttentionView& view,
                                   bool with_trees) {
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
  for (const TreeSequence& s : sequences_) {
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

std::vector<float> AttentionScene::Attend(const OpTable& table, const AttentionView& view,
                                          bool with_trees, int64_t range) {
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

void AttentionScene::AddTokens(size_t sequence) {
  const TreeSequence& s = sequences_[sequence];
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

ExactResult ExactAttention(AttentionScene& scene, size_t token, size_t head,
                           const AttentionView& view) {
  const AttentionHeads& heads = scene.heads();
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
  ExactResult exact = {std::vector<double>(static_cast<size_t>(heads.dim)), 0, 0};
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

}  // namespace sluice::test
