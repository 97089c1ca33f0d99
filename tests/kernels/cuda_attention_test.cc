// The CUDA attention, emulated, against a softmax in float64 over the cache as it was stored.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr double kSplitEpsilon = 0x1p-22;  // of a number as the sum of two f16
constexpr float kUntouched = -77.0f;

struct Heads {
  int64_t heads, kv_heads, dim;
};

struct View {
  float scale = 1.0f;
  int64_t window = 0;
  float softcap = 0;
  std::vector<float> slopes = {};
  bool bf16 = false;
};

// ALiBi's part of the score of key j for the token with the index i. REQUIRES: with bf16, slopes
// that are numbers in bfloat16, so that the products are exact before they are rounded.
double Bias(const View& view, int64_t head, int64_t j, int64_t i) {
  if (view.slopes.empty()) return 0;
  const float slope = view.slopes[static_cast<size_t>(head)];
  if (!view.bf16) return slope * static_cast<double>(j - i);
  const auto rounded = [](float value) { return Bf16ToFloat(FloatToBf16(value)); };
  const auto product = [&](int64_t index) {
    return double{rounded(slope * rounded(static_cast<float>(index)))};
  };
  return view.scale * (product(j) - product(i));
}

// Sequences of the lengths given, in shuffled blocks of one f16 cache that is NaN elsewhere.
class Cache {
 public:
  Cache(const Heads& heads, const std::vector<int64_t>& lengths, std::mt19937& random)
      : heads_(heads) {
    int64_t blocks = 3;
    for (int64_t length : lengths) blocks += (length + 15) / 16;
    const int64_t block_bytes = heads.kv_heads * 2 * 16 * heads.dim * 2 + 32;
    bytes_.assign(static_cast<size_t>(blocks * block_bytes), std::byte{0xff});
    layer_ = {bytes_.data(), block_bytes, KvType::kF16, heads.kv_heads, heads.dim};
    std::vector<uint32_t> ids;
    for (int64_t i = 0; i < blocks; ++i) ids.push_back(static_cast<uint32_t>(i));
    std::shuffle(ids.begin(), ids.end(), random);
    auto next = ids.begin();
    const int64_t width = heads.kv_heads * heads.dim;
    for (int64_t length : lengths) {
      tables_.emplace_back(next, next + (length + 15) / 16);
      next += (length + 15) / 16;
      keys_.push_back(test::RandomFloats(static_cast<size_t>(length * width), random));
      values_.push_back(test::RandomFloats(static_cast<size_t>(length * width), random));
      std::vector<int64_t> slots;
      for (int64_t i = 0; i < length; ++i) {
        slots.push_back(int64_t{tables_.back()[static_cast<size_t>(i / 16)]} * 16 + i % 16);
      }
      kCudaTable.store_kv(
          {keys_.back().data(), values_.back().data(), width, layer_, slots.data(), 0, length},
          nullptr);
    }
  }

  // Stores other values with a key, in every KV head; returns what they were.
  std::vector<float> SetValues(size_t sequence, int64_t position,
                               const std::vector<float>& values) {
    const int64_t width = heads_.kv_heads * heads_.dim;
    float* const place = values_[sequence].data() + position * width;
    const std::vector<float> before(place, place + width);
    std::copy(values.begin(), values.end(), place);
    const int64_t slot =
        int64_t{tables_[sequence][static_cast<size_t>(position / 16)]} * 16 + position % 16;
    kCudaTable.store_kv(
        {keys_[sequence].data() + position * width, place, width, layer_, &slot, 0, 1}, nullptr);
    return before;
  }

  const KvLayer& layer() const { return layer_; }
  const Heads& heads() const { return heads_; }
  const uint32_t* table(size_t sequence) const { return tables_[sequence].data(); }
  double Key(size_t sequence, int64_t position, int64_t kv_head, int64_t i) const {
    return Stored(keys_[sequence], position, kv_head, i);
  }
  double Value(size_t sequence, int64_t position, int64_t kv_head, int64_t i) const {
    return Stored(values_[sequence], position, kv_head, i);
  }

 private:
  double Stored(const std::vector<float>& all, int64_t position, int64_t head, int64_t i) const {
    const int64_t at = (position * heads_.kv_heads + head) * heads_.dim + i;
    return F16ToFloat(FloatToF16(all[static_cast<size_t>(at)]));
  }

  Heads heads_;
  KvLayer layer_;
  std::vector<std::byte> bytes_;
  std::vector<std::vector<uint32_t>> tables_;
  std::vector<std::vector<float>> keys_, values_;
};

struct Token {
  size_t sequence;
  int64_t length;  // keys it may see
};

struct Exact {
  std::vector<double> out;
  double bound;
};

// Where the error comes from: the query is scaled (two roundings) and split into two f16 numbers,
// which hold it to 2^-22 of it or 2^-25; sums on the tensor cores, taken as 2 epsilon for each 8
// terms; the argument of exp2, epsilon of its magnitude, which matters up to 150; weights split
// too, and lost below 2^-25; one correction for each 16 keys.
Exact ExactAttention(const Cache& cache, const Token& token, const float* query, int64_t head,
                     int64_t kv_head, const View& view) {
  const int64_t dim = cache.heads().dim;
  const int64_t oldest = view.window == 0 ? 0 : std::max<int64_t>(token.length - view.window, 0);
  std::vector<double> scores;
  double score_error = 0;
  double dot_error = 0;
  for (int64_t j = oldest; j < token.length; ++j) {
    double dot = 0;
    double magnitude = 0;
    double keys = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const double key = cache.Key(token.sequence, j, kv_head, i);
      dot += query[i] * key;
      magnitude += std::fabs(query[i] * key);
      keys += std::fabs(key);
    }
    const double terms = static_cast<double>(dim) / 8 * 2 + 2;
    dot_error = std::max(
        dot_error,
        view.scale * magnitude * (0x1p-22 + 4 * kEpsilon + terms * 2 * kEpsilon) + keys * 0x1p-24);
    const double bias = Bias(view, head, j, token.length - 1);
    const double score = view.scale * dot + bias;
    scores.push_back(view.softcap == 0 ? score : view.softcap * std::tanh(score / view.softcap));
    // A bias of more than 200 leaves no weight to the key.
    score_error = std::max(score_error, 4 * std::min(std::fabs(bias), 200.0) * kEpsilon);
  }
  score_error += dot_error;
  score_error += 8 * view.softcap * kEpsilon;
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += (score = std::exp(score - largest));
  Exact exact{std::vector<double>(static_cast<size_t>(dim)), 0};
  double largest_value = 0;
  for (int64_t j = oldest; j < token.length; ++j) {
    for (int64_t i = 0; i < dim; ++i) {
      const double value = cache.Value(token.sequence, j, kv_head, i);
      largest_value = std::max(largest_value, std::fabs(value));
      exact.out[static_cast<size_t>(i)] += scores[static_cast<size_t>(j - oldest)] / sum * value;
    }
  }
  const auto count = static_cast<double>(token.length - oldest);
  const double steps = count / 8 * 2 + count / 4 + 16;
  exact.bound = largest_value * (2 * std::expm1(2 * score_error + 150 * kEpsilon) + kSplitEpsilon +
                                 count * 0x1p-25 + steps * 4 * kEpsilon);
  return exact;
}

// What one call gives; `run` is the longest run that the launcher is told of.
std::vector<float> Attend(const Cache& cache, const std::vector<Token>& tokens,
                          const std::vector<float>& query, const View& view, int64_t run,
                          int64_t item_begin = 0, int64_t item_end = 1 << 30,
                          int64_t tokens_at_once = 1 << 30) {
  const Heads& heads = cache.heads();
  const auto count = static_cast<int64_t>(tokens.size());
  const int64_t out_stride = heads.heads * heads.dim + 3;
  std::vector<const uint32_t*> tables;
  std::vector<int64_t> lengths;
  for (const Token& token : tokens) {
    tables.push_back(cache.table(token.sequence));
    lengths.push_back(token.length);
  }
  AttentionArgs args = {};
  args.query = query.data();
  args.query_stride = heads.heads * heads.dim;
  args.num_heads = heads.heads;
  args.layer = cache.layer();
  args.block_tables = tables.data();
  args.lengths = lengths.data();
  args.window = view.window;
  args.scale = view.scale;
  args.softcap = view.softcap;
  args.slopes = view.slopes.empty() ? nullptr : view.slopes.data();
  args.slopes_in_bf16 = view.bf16;
  std::vector<float> out(static_cast<size_t>(count * out_stride), kUntouched);
  args.out = out.data();
  args.out_stride = out_stride;
  args.item_begin = item_begin;
  args.item_end = std::min(item_end, count * heads.kv_heads);
  args.longest_length = *std::max_element(lengths.begin(), lengths.end());
  args.longest_run = run;
  std::vector<float> scratch(static_cast<size_t>(GpuAttentionScratch(
      std::min(count, tokens_at_once), heads.heads, heads.dim, args.longest_length)));
  args.scratch = scratch.data();
  args.scratch_size = static_cast<int64_t>(scratch.size());
  kCudaTable.attention(args, nullptr);
  return out;
}

std::vector<float> RandomQuery(const Heads& heads, size_t tokens, std::mt19937& random) {
  return test::RandomFloats(tokens * static_cast<size_t>(heads.heads * heads.dim), random);
}

void ExpectExact(const Cache& cache, const std::vector<Token>& tokens, const View& view,
                 int64_t run, std::mt19937& random) {
  const Heads& heads = cache.heads();
  const std::vector<float> query = RandomQuery(heads, tokens.size(), random);
  const std::vector<float> out = Attend(cache, tokens, query, view, run);
  const int64_t out_stride = heads.heads * heads.dim + 3;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int64_t head = 0; head < heads.heads; ++head) {
      const Exact exact =
          ExactAttention(cache, tokens[t],
                         query.data() + (static_cast<int64_t>(t) * heads.heads + head) * heads.dim,
                         head, head / (heads.heads / heads.kv_heads), view);
      for (int64_t i = 0; i < heads.dim; ++i) {
        const float actual =
            out[t * static_cast<size_t>(out_stride) + static_cast<size_t>(head * heads.dim + i)];
        const double expected = exact.out[static_cast<size_t>(i)];
        ASSERT_TRUE(std::fabs(actual - expected) <= exact.bound)
            << "heads " << heads.heads << "/" << heads.kv_heads << " dim " << heads.dim << " run "
            << run << " length " << tokens[t].length << ": " << actual << ", not " << expected
            << " within " << exact.bound;
      }
    }
    for (int64_t i = heads.heads * heads.dim; i < out_stride; ++i) {
      ASSERT_EQ(out[t * static_cast<size_t>(out_stride) + static_cast<size_t>(i)], kUntouched);
    }
  }
}

float Scale(const Heads& heads) { return 1 / std::sqrt(static_cast<float>(heads.dim)); }

std::vector<Token> Prompt(size_t sequence, int64_t first_length, int64_t count) {
  std::vector<Token> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back({sequence, first_length + i});
  return tokens;
}

TEST(CudaAttention, DecodeOfSequencesOfManyLengths) {
  std::mt19937 random(1);
  const std::vector<int64_t> lengths = {1, 2, 15, 16, 17, 31, 32, 33, 100, 255, 256, 257, 600};
  std::vector<Token> tokens;
  for (size_t i = 0; i < lengths.size(); ++i) tokens.push_back({i, lengths[i]});
  for (const Heads& heads : {Heads{4, 4, 8}, Heads{9, 3, 64}, Heads{7, 1, 16}, Heads{5, 5, 24},
                             Heads{16, 1, 128}, Heads{40, 2, 32}}) {
    const Cache cache(heads, lengths, random);
    ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, tokens, {Scale(heads)}, 1, random));
  }
}

TEST(CudaAttention, PrefillOfOneSequence) {
  std::mt19937 random(2);
  for (const Heads& heads :
       {Heads{4, 4, 8}, Heads{9, 3, 64}, Heads{8, 2, 128}, Heads{70, 1, 16}, Heads{2, 1, 256}}) {
    const Cache cache(heads, {150}, random);
    ASSERT_NO_FATAL_FAILURE(
        ExpectExact(cache, Prompt(0, 1, 40), {Scale(heads)}, 40, random));  // from the beginning
    ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, Prompt(0, 111, 40), {Scale(heads)}, 40, random));
  }
}

TEST(CudaAttention, HeadDimensionsThatAreNoMultipleOfAnything) {
  std::mt19937 random(3);
  for (int64_t dim : {1, 2, 7, 9, 12, 17, 72, 80, 96, 100, 127, 136, 192, 255}) {
    const Heads heads{6, 2, dim};
    const Cache cache(heads, {33, 50}, random);
    const std::vector<Token> decode = {{0, 33}, {1, 50}, {1, 16}};
    ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, decode, {0.2f}, 1, random));
    ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, Prompt(1, 10, 35), {0.2f}, 35, random));
  }
}

TEST(CudaAttention, ABatchOfPromptsAndSingleTokensTogether) {
  std::mt19937 random(4);
  const Heads heads{6, 2, 40};
  const Cache cache(heads, {90, 20, 70, 61}, random);
  std::vector<Token> tokens = Prompt(0, 40, 51);
  tokens.push_back({1, 20});
  tokens.push_back({2, 70});
  for (const Token& token : Prompt(3, 1, 61)) tokens.push_back(token);
  ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, tokens, {Scale(heads)}, 61, random));
}

TEST(CudaAttention, SlidingWindowsAndSoftCaps) {
  std::mt19937 random(5);
  const Heads heads{4, 2, 64};
  const Cache cache(heads, {300, 40}, random);
  for (int64_t window : {1, 5, 16, 17, 100, 299, 1000}) {
    for (float softcap : {0.0f, 3.0f}) {
      const View view{Scale(heads), window, softcap};
      ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, {{0, 300}, {1, 40}, {0, 7}}, view, 1, random));
      ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, Prompt(0, 250, 37), view, 37, random));
    }
  }
}

TEST(CudaAttention, SlopesFavourNearKeysHeadByHead) {
  std::mt19937 random(9);
  for (const Heads& heads : {Heads{10, 2, 64}, Heads{5, 5, 24}, Heads{8, 1, 136}}) {
    const Cache cache(heads, {520, 40}, random);
    std::vector<float> slopes;
    for (int64_t i = 0; i < heads.heads; ++i) slopes.push_back(0.75f / static_cast<float>(1 << i));
    const float scale = Scale(heads);
    for (const View& view : {View{scale, 0, 0, slopes}, View{scale, 0, 0, slopes, true},
                             View{scale, 19, 0, slopes}, View{scale, 0, 5.0f, slopes}}) {
      ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, {{0, 520}, {1, 40}, {0, 7}}, view, 1, random));
      ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, Prompt(0, 470, 37), view, 37, random));
    }
  }
}

TEST(CudaAttention, ATokensResultDoesNotDependOnTheBatch) {
  std::mt19937 random(6);
  const Heads heads{8, 2, 64};
  const Cache cache(heads, {700, 30}, random);
  std::vector<Token> tokens = Prompt(0, 690, 9);  // drafts that are verified together
  tokens.push_back({1, 30});
  const std::vector<float> query = RandomQuery(heads, tokens.size(), random);
  const std::vector<float> together = Attend(cache, tokens, query, {Scale(heads)}, 9);
  const size_t width = static_cast<size_t>(heads.heads * heads.dim);
  for (size_t t = 0; t < tokens.size(); ++t) {
    const std::vector<float> own(query.begin() + static_cast<ptrdiff_t>(t * width),
                                 query.begin() + static_cast<ptrdiff_t>((t + 1) * width));
    const std::vector<float> alone = Attend(cache, {tokens[t]}, own, {Scale(heads)}, 1);
    for (size_t i = 0; i < width; ++i) {
      ASSERT_EQ(alone[i], together[t * (width + 3) + i]) << t;
    }
  }
  for (int64_t at_once : {1, 3}) {  // with less scratch memory
    EXPECT_EQ(Attend(cache, tokens, query, {Scale(heads)}, 9, 0, 1 << 30, at_once), together);
  }
}

// 130 partitions; the window leaves keys to the last six of them.
TEST(CudaAttention, MorePartitionsThanABlockHasThreadsToPutThemTogether) {
  std::mt19937 random(12);
  const Heads heads{2, 1, 8};
  const Cache cache(heads, {33268}, random);
  ASSERT_NO_FATAL_FAILURE(ExpectExact(cache, {{0, 33268}}, {Scale(heads), 1500}, 1, random));
}

TEST(CudaAttention, ScratchMemoryIsBoundedForLongContextsAndLargeBatches) {
  EXPECT_EQ(GpuAttentionScratch(10, 32, 128, 256), 0);
  EXPECT_EQ(GpuAttentionScratch(10, 32, 127, 257), kGpuAttentionCounters + 10 * 32 * 2 * 130);
  EXPECT_LE(GpuAttentionScratch(4096, 32, 128, 131072) * 4, (int64_t{64} << 20) + (64 << 10));
  EXPECT_EQ(GpuAttentionScratch(4096, 128, 256, 1 << 20),
            kGpuAttentionCounters + 128 * 4096 * 258);  // of one token
}

TEST(CudaAttention, TheOrderOfThreadsAndBlocksDoesNotMatter) {
  std::mt19937 random(7);
  const Heads heads{6, 2, 128};
  const Cache cache(heads, {300, 65}, random);
  std::vector<Token> tokens = Prompt(0, 260, 20);
  for (const Token& token : Prompt(1, 20, 40)) tokens.push_back(token);
  const std::vector<float> query = RandomQuery(heads, tokens.size(), random);
  for (int64_t run : {1, 40}) {
    const std::vector<float> expected = Attend(cache, tokens, query, {0.1f}, run);
    for (Order order : cuda_emulation::kAllOrders) {
      SetOrder(order);
      EXPECT_EQ(Attend(cache, tokens, query, {0.1f}, run), expected);
    }
    SetOrder(Order::kAscending);
  }
}

TEST(CudaAttention, OnlyTheItemsOfTheRangeAreWritten) {
  std::mt19937 random(8);
  const Heads heads{4, 2, 16};
  const Cache cache(heads, {400}, random);
  const std::vector<Token> tokens = Prompt(0, 395, 5);
  const std::vector<float> query = RandomQuery(heads, tokens.size(), random);
  for (int64_t run : {5, 33}) {
    const std::vector<float> all = Attend(cache, tokens, query, {0.25f}, run);
    const std::vector<float> some = Attend(cache, tokens, query, {0.25f}, run, 3, 8);
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t column = i % 67;
      if (column >= 64) continue;
      const auto item = static_cast<int64_t>(i / 67 * 2 + column / 32);
      ASSERT_EQ(some[i], item >= 3 && item < 8 ? all[i] : kUntouched) << run << " " << i;
    }
    EXPECT_EQ(Attend(cache, tokens, query, {0.25f}, run, 4, 4),
              std::vector<float>(all.size(), kUntouched));
  }
}

TEST(CudaAttention, ScoresOfMillionsDoNotOverflow) {
  std::mt19937 random(9);
  const Heads heads{1, 1, 8};
  const Cache cache(heads, {50}, random);
  for (int64_t run : {1, 33}) {
    const std::vector<float> query(8, 1e4f);
    const std::vector<float> out = Attend(cache, {{0, 50}}, query, {1.0f}, run);
    int64_t best = 0;
    double best_score = -1e30;
    for (int64_t j = 0; j < 50; ++j) {
      double score = 0;
      for (int64_t i = 0; i < 8; ++i) score += 1e4 * cache.Key(0, j, 0, i);
      if (score > best_score) {
        best_score = score;
        best = j;
      }
    }
    for (int64_t i = 0; i < 8; ++i) {
      EXPECT_EQ(out[static_cast<size_t>(i)], cache.Value(0, best, 0, i));
    }
  }
}

TEST(CudaAttention, NaNInAQueryStaysInItsHead) {
  std::mt19937 random(10);
  const Heads heads{4, 2, 16};
  const Cache cache(heads, {40}, random);
  std::vector<float> query = RandomQuery(heads, 1, random);
  query[16] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> out = Attend(cache, {{0, 40}}, query, {0.25f}, 1);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(std::isnan(out[i]), i / 16 == 1) << i;
}

// Prompts of two sequences, which meet in a tile: by single tokens, by partitions and as a prefill.
TEST(CudaAttention, AValueThatIsNotFiniteReachesOnlyTheTokensThatSeeIt) {
  for (const Heads& heads : {Heads{4, 2, 64}, Heads{9, 3, 20}}) {
    std::mt19937 random(11);
    Cache cache(heads, {80, 40}, random);
    std::vector<Token> tokens = Prompt(0, 61, 20);
    for (const Token& token : Prompt(1, 1, 20)) tokens.push_back(token);
    const std::vector<float> query = RandomQuery(heads, tokens.size(), random);
    const auto width = static_cast<size_t>(heads.heads * heads.dim);
    const auto row = static_cast<size_t>(heads.kv_heads * heads.dim);
    for (int64_t window : {0, 12}) {
      const View view{Scale(heads), window};
      for (int64_t run : {1, 20, 40}) {
        const std::vector<float> before = Attend(cache, tokens, query, view, run);
        for (int64_t position : {66, 79}) {
          for (float wrong : {std::numeric_limits<float>::quiet_NaN(), -1e9f}) {
            const std::vector<float> good =
                cache.SetValues(0, position, std::vector<float>(row, wrong));
            const std::vector<float> after = Attend(cache, tokens, query, view, run);
            cache.SetValues(0, position, good);
            for (size_t t = 0; t < tokens.size(); ++t) {
              const bool sees = tokens[t].sequence == 0 && position < tokens[t].length &&
                                (window == 0 || position >= tokens[t].length - window);
              for (size_t i = t * (width + 3); i < t * (width + 3) + width; ++i) {
                ASSERT_EQ(std::isfinite(after[i]), !sees)
                    << "token " << t << " run " << run << " window " << window;
                if (!sees) {
                  ASSERT_EQ(after[i], before[i]) << "token " << t << " run " << run;
                }
              }
            }
          }
        }
      }
    }
  }
}

TEST(CudaAttention, OtherCachesAreRefused) {
  EXPECT_TRUE(CheckGpuCache({nullptr, 0, KvType::kF16, 1, 256}).ok());
  const Status too_large = CheckGpuCache({nullptr, 0, KvType::kF16, 1, 320});
  EXPECT_EQ(too_large.code(), ErrorCode::kUnsupported);
  EXPECT_NE(too_large.message().find("heads of at most 256 values, not 320"), std::string::npos);
  EXPECT_FALSE(CheckGpuCache({nullptr, 0, KvType::kF16, 1, 257}).ok());
  EXPECT_EQ(CheckGpuCache({nullptr, 0, KvType::kF32, 1, 64}).code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace sluice
