// Attention of every table against a plain softmax in float64 over the cache as it was stored.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "kernels/select.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// One sequence of `length` tokens in shuffled blocks of a cache that is NaN everywhere else.
struct Cache {
  Cache(KvType type, int64_t kv_heads, int64_t head_dim, int64_t length, std::mt19937& random)
      : length(length) {
    const int64_t blocks = (length + 15) / 16 + 2;
    const int64_t block_bytes = kv_heads * 2 * 16 * head_dim * KvTypeBytes(type) + 64;
    bytes.assign(static_cast<size_t>(blocks * block_bytes), std::byte{0xff});
    layer = {bytes.data(), block_bytes, type, kv_heads, head_dim};
    for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<uint32_t>(i));
    std::shuffle(table.begin(), table.end(), random);
    table.resize(static_cast<size_t>((length + 15) / 16));
    keys = test::RandomFloats(static_cast<size_t>(length * kv_heads * head_dim), random);
    values = test::RandomFloats(static_cast<size_t>(length * kv_heads * head_dim), random);
  }

  void Store(const OpTable& op_table) {
    std::vector<int64_t> slots;
    for (int64_t i = 0; i < length; ++i) {
      slots.push_back(int64_t{table[static_cast<size_t>(i / 16)]} * 16 + i % 16);
    }
    op_table.store_kv({keys.data(), values.data(), layer.num_kv_heads * layer.head_dim, layer,
                       slots.data(), 0, length},
                      nullptr);
  }

  double Rounded(float value) const {
    return layer.type == KvType::kF32 ? value : F16ToFloat(FloatToF16(value));
  }

  int64_t length;
  KvLayer layer;
  std::vector<std::byte> bytes;
  std::vector<uint32_t> table;
  std::vector<float> keys, values;  // [length, kv_heads * head_dim]
};

// What a query sees, and how.
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

struct Exact {
  std::vector<double> out;
  double bound;
};

// Error of a score: dim roundings in a sum of that many terms, and its own scaling; a softmax with
// scores that are off by d has weights off by a factor e^(2d); sums over the keys are rounded, and
// corrected once for each partition.
Exact ExactAttention(const Cache& cache, const float* query, int64_t head, int64_t kv_head,
                     const View& view, int64_t length) {
  const double scale = view.scale;
  const int64_t oldest = view.window == 0 ? 0 : std::max<int64_t>(length - view.window, 0);
  const int64_t dim = cache.layer.head_dim;
  const int64_t stride = cache.layer.num_kv_heads * dim;
  std::vector<double> scores;
  double score_error = 0;
  double dot_error = 0;
  for (int64_t j = oldest; j < length; ++j) {
    double dot = 0;
    double magnitude = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const size_t at = static_cast<size_t>(j * stride + kv_head * dim + i);
      const double product = query[i] * cache.Rounded(cache.keys[at]);
      dot += product;
      magnitude += std::fabs(product);
    }
    const double bias = Bias(view, head, j, length - 1);
    const double score = scale * dot + bias;
    scores.push_back(view.softcap == 0 ? score : view.softcap * std::tanh(score / view.softcap));
    // A bias of more than 200 leaves no weight to the key.
    score_error = std::max(score_error, 4 * std::min(std::fabs(bias), 200.0) * kEpsilon);
    dot_error = std::max(dot_error, scale * magnitude * static_cast<double>(dim + 2) * kEpsilon +
                                        std::fabs(scale * dot) * 2 * kEpsilon);
  }
  score_error += dot_error;
  // tanh is at most as steep as its argument, and is computed to a few epsilons of the cap.
  score_error += 8 * view.softcap * kEpsilon;
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += (score = std::exp(score - largest));
  Exact exact{std::vector<double>(static_cast<size_t>(dim)), 0};
  double largest_value = 0;
  for (int64_t j = oldest; j < length; ++j) {
    for (int64_t i = 0; i < dim; ++i) {
      const size_t at = static_cast<size_t>(j * stride + kv_head * dim + i);
      const double value = cache.Rounded(cache.values[at]);
      largest_value = std::max(largest_value, std::fabs(value));
      exact.out[static_cast<size_t>(i)] += scores[static_cast<size_t>(j - oldest)] / sum * value;
    }
  }
  // The argument of exp is rounded too: by epsilon times its magnitude, which matters up to where
  // the weight vanishes, 104.
  const double weight_error = std::expm1(2 * score_error + 104 * kEpsilon) +
                              (1.2 * static_cast<double>(length) + 16) * kEpsilon;
  exact.bound = 2 * weight_error * largest_value;
  return exact;
}

struct Heads {
  int64_t heads, kv_heads, dim;
};

// Attends from tokens that see the first lengths[t] positions and compares every element.
void ExpectExact(const OpTable& table, Cache& cache, int64_t heads,
                 const std::vector<int64_t>& lengths, const std::vector<float>& query,
                 const View& view) {
  cache.Store(table);
  const auto tokens = static_cast<int64_t>(lengths.size());
  const int64_t dim = cache.layer.head_dim;
  const int64_t kv_heads = cache.layer.num_kv_heads;
  const int64_t out_stride = heads * dim + 3;
  const std::vector<const uint32_t*> block_tables(lengths.size(), cache.table.data());
  std::vector<float> out(static_cast<size_t>(tokens * out_stride), -77.0f);
  AttentionArgs args{};
  args.query = query.data();
  args.query_stride = heads * dim;
  args.num_heads = heads;
  args.layer = cache.layer;
  args.block_tables = block_tables.data();
  args.lengths = lengths.data();
  args.scale = view.scale;
  args.window = view.window;
  args.softcap = view.softcap;
  args.slopes = view.slopes.empty() ? nullptr : view.slopes.data();
  args.slopes_in_bf16 = view.bf16;
  args.out = out.data();
  args.out_stride = out_stride;
  const int64_t items = tokens * kv_heads;
  for (int64_t begin = 0; begin < items; begin += 5) {
    args.item_begin = begin;
    args.item_end = std::min(items, begin + 5);
    table.attention(args, nullptr);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      const Exact exact =
          ExactAttention(cache, query.data() + (t * heads + head) * dim, head,
                         head / (heads / kv_heads), view, lengths[static_cast<size_t>(t)]);
      for (int64_t i = 0; i < dim; ++i) {
        const float actual = out[static_cast<size_t>(t * out_stride + head * dim + i)];
        const double expected = exact.out[static_cast<size_t>(i)];
        ASSERT_TRUE(std::fabs(actual - expected) <= exact.bound)
            << table.name << " heads " << heads << "/" << kv_heads << " dim " << dim << " length "
            << lengths[static_cast<size_t>(t)] << ": " << actual << ", not " << expected
            << " within " << exact.bound;
      }
    }
    for (int64_t i = heads * dim; i < out_stride; ++i) {
      ASSERT_EQ(out[static_cast<size_t>(t * out_stride + i)], -77.0f);
    }
  }
}

class AttentionTest : public testing::TestWithParam<KvType> {};

TEST_P(AttentionTest, EveryLengthTo100And1000WithSharedAndOwnKvHeads) {
  std::mt19937 random(11);
  std::vector<int64_t> lengths;
  for (int64_t length = 1; length <= 100; ++length) lengths.push_back(length);
  lengths.push_back(1000);
  for (const Heads& h : {Heads{4, 4, 8}, Heads{9, 3, 64}, Heads{7, 1, 16}, Heads{5, 5, 24}}) {
    Cache cache(GetParam(), h.kv_heads, h.dim, 1000, random);
    const std::vector<float> query =
        test::RandomFloats(lengths.size() * static_cast<size_t>(h.heads * h.dim), random);
    for (const OpTable* table : AvailableTables()) {
      ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, h.heads, lengths, query,
                                          {1 / std::sqrt(static_cast<float>(h.dim))}));
    }
  }
}

TEST_P(AttentionTest, HeadDimensionsThatAreNoMultipleOfAnything) {
  std::mt19937 random(12);
  const std::vector<int64_t> lengths = {1, 15, 16, 17, 33};
  for (int64_t dim : {1, 2, 3, 7, 9, 12, 17, 80, 100, 127, 128, 192, 256, 512, 513, 576}) {
    for (int64_t heads : {1, 2, 3, 6, 16}) {
      Cache cache(GetParam(), 1, dim, 33, random);
      const std::vector<float> query =
          test::RandomFloats(lengths.size() * static_cast<size_t>(heads * dim), random);
      for (const OpTable* table : AvailableTables()) {
        ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, heads, lengths, query, {0.2f}));
      }
    }
  }
}

TEST_P(AttentionTest, VeryLargeScoresOfEitherSignDoNotOverflow) {
  std::mt19937 random(13);
  for (float sign : {1.0f, -1.0f}) {
    Cache cache(GetParam(), 1, 8, 50, random);
    std::vector<float> query(8, sign * 1e4f);
    for (size_t i = 0; i < cache.keys.size(); ++i) {
      cache.keys[i] = i / 8 == 33 ? 100.0f : 50.0f;  // scores of 8e6 and 4e6
    }
    for (const OpTable* table : AvailableTables()) {
      cache.Store(*table);
      const int64_t length = 50;
      const uint32_t* block_table = cache.table.data();
      std::vector<float> out(8);
      table->attention(
          {query.data(), 8, 1, cache.layer, &block_table, &length, 0, 1.0f, 0, out.data(), 8, 0, 1},
          nullptr);
      for (size_t i = 0; i < 8; ++i) {
        if (sign > 0) {  // all weight is on one key
          EXPECT_EQ(out[i], static_cast<float>(cache.Rounded(cache.values[33 * 8 + i])));
        } else {  // equal weights on all others
          double mean = 0;
          for (size_t j = 0; j < 50; ++j) {
            if (j != 33) mean += cache.Rounded(cache.values[j * 8 + i]) / 49;
          }
          EXPECT_NEAR(out[i], mean, 49 * 4 * kEpsilon) << table->name;
        }
      }
    }
  }
}

TEST_P(AttentionTest, ASlidingWindowHidesOlderKeysAtEveryOffsetInABlock) {
  std::mt19937 random(17);
  std::vector<int64_t> lengths;
  for (int64_t length = 1; length <= 70; ++length) lengths.push_back(length);
  Cache cache(GetParam(), 2, 24, 70, random);
  const std::vector<float> query = test::RandomFloats(lengths.size() * 6 * 24, random);
  for (int64_t window : {1, 2, 15, 16, 17, 31, 33, 69, 70, 4096}) {
    for (const OpTable* table : AvailableTables()) {
      ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, 6, lengths, query, {0.2f, window}));
    }
  }
}

TEST_P(AttentionTest, ContextsAndWindowsOfSeveralSplits) {
  std::mt19937 random(22);
  Cache cache(GetParam(), 2, 16, 1600, random);
  const std::vector<int64_t> lengths = {511, 512, 513, 1024, 1025, 1600};
  const std::vector<float> query = test::RandomFloats(lengths.size() * 4 * 16, random);
  for (int64_t window : {0, 1, 512, 513, 700}) {
    for (const OpTable* table : AvailableTables()) {
      ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, 4, lengths, query, {0.2f, window}));
    }
  }
}

// Blocks that lie behind the window may be gone.
TEST_P(AttentionTest, ASlidingWindowReadsNothingBehindIt) {
  std::mt19937 random(18);
  Cache cache(GetParam(), 1, 16, 100, random);
  for (size_t i = 0; i < size_t{70} * 16; ++i) {
    cache.keys[i] = cache.values[i] = std::numeric_limits<float>::quiet_NaN();
  }
  const std::vector<float> query = test::RandomFloats(3 * 16, random);
  for (const OpTable* table : AvailableTables()) {
    cache.Store(*table);
    ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, 3, {100}, query, {0.3f, 30}));
  }
}

TEST_P(AttentionTest, ASoftCapBoundsScoresOfEverySize) {
  std::mt19937 random(19);
  Cache cache(GetParam(), 2, 32, 50, random);
  const std::vector<float> query = test::RandomFloats(4 * 6 * 32, random);
  for (float scale : {1e-3f, 0.2f, 30.0f, 1e6f}) {
    for (const OpTable* table : AvailableTables()) {
      ASSERT_NO_FATAL_FAILURE(
          ExpectExact(*table, cache, 6, {1, 17, 32, 50}, query, {scale, 0, 50.0f}));
      ASSERT_NO_FATAL_FAILURE(
          ExpectExact(*table, cache, 6, {1, 17, 32, 50}, query, {scale, 20, 2.0f}));
    }
  }
}

TEST_P(AttentionTest, SlopesFavourNearKeysHeadByHead) {
  std::mt19937 random(22);
  std::vector<int64_t> lengths = {1, 2, 15, 16, 17, 40, 333, 700};
  for (int64_t length = 300; length < 309; ++length) lengths.push_back(length);
  for (const Heads& h : {Heads{12, 12, 24}, Heads{9, 3, 64}, Heads{10, 1, 40}, Heads{1, 1, 520}}) {
    Cache cache(GetParam(), h.kv_heads, h.dim, 700, random);
    const std::vector<float> query =
        test::RandomFloats(lengths.size() * static_cast<size_t>(h.heads * h.dim), random);
    std::vector<float> slopes;
    for (int64_t i = 0; i < h.heads; ++i) slopes.push_back(0.75f / static_cast<float>(1 << i));
    for (const OpTable* table : AvailableTables()) {
      for (const View& view : {View{0.2f, 0, 0, slopes}, View{0.2f, 0, 0, slopes, true},
                               View{0.2f, 19, 0, slopes}, View{0.2f, 0, 5.0f, slopes}}) {
        ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, h.heads, lengths, query, view));
      }
    }
  }
}

// 100,000 tokens away a product in float32 is off by more than between neighbours.
TEST_P(AttentionTest, SlopesAreExactNearTheEndOfALongContext) {
  std::mt19937 random(23);
  const int64_t length = 100003;
  Cache cache(GetParam(), 1, 8, length, random);
  const std::vector<float> query = test::RandomFloats(8, random);
  for (const OpTable* table : AvailableTables()) {
    ASSERT_NO_FATAL_FAILURE(
        ExpectExact(*table, cache, 1, {length}, query, {0.3f, 0, 0, {0.70710677f}}));
  }
}

TEST_P(AttentionTest, EqualScoresGiveTheMean) {
  std::mt19937 random(14);
  Cache cache(GetParam(), 2, 16, 70, random);
  const std::vector<float> query(4 * 16, 0.0f);
  for (const OpTable* table : AvailableTables()) {
    ASSERT_NO_FATAL_FAILURE(ExpectExact(*table, cache, 4, {70}, query, {1.0f}));
  }
}

// A token alone, and among others, and in whatever blocks its context lies: the same bits.
TEST_P(AttentionTest, AResultDoesNotDependOnTheBatchOrOnThePlaceOfTheBlocks) {
  std::mt19937 random(15);
  Cache cache(GetParam(), 2, 64, 100, random);
  Cache moved = cache;
  std::reverse(moved.table.begin(), moved.table.end());
  moved.layer.blocks = moved.bytes.data();
  const std::vector<float> query = test::RandomFloats(3 * 6 * 64, random);
  const int64_t lengths[] = {100, 37, 64};
  for (const OpTable* table : AvailableTables()) {
    cache.Store(*table);
    moved.Store(*table);
    std::vector<float> all(query.size()), single(query.size());
    const uint32_t* tables[] = {cache.table.data(), cache.table.data(), cache.table.data()};
    table->attention({query.data(), 6 * 64, 6, cache.layer, tables, lengths, 0, 0.125f, 0,
                      all.data(), 6 * 64, 0, 6},
                     nullptr);
    for (int64_t t = 0; t < 3; ++t) {
      const uint32_t* one = moved.table.data();
      for (int64_t item = 0; item < 2; ++item) {
        table->attention({query.data() + t * 6 * 64, 6 * 64, 6, moved.layer, &one, lengths + t, 0,
                          0.125f, 0, single.data() + t * 6 * 64, 6 * 64, item, item + 1},
                         nullptr);
      }
    }
    EXPECT_EQ(std::memcmp(all.data(), single.data(), all.size() * 4), 0) << table->name;
  }
}

// Every item by itself, against all items in ranges of every size: the same bits.
TEST_P(AttentionTest, NeighboursOfTheSameSequenceAndOfOthersChangeNothing) {
  std::mt19937 random(20);
  for (const Heads& h : {Heads{8, 2, 64}, Heads{9, 3, 20}, Heads{5, 5, 33}, Heads{40, 1, 256}}) {
    const int64_t prompt = 75;
    Cache cache(GetParam(), h.kv_heads, h.dim, 200, random);
    // Two sequences: the second begins at the fourth block of the same cache.
    std::vector<const uint32_t*> tables;
    std::vector<int64_t> lengths;
    const auto add = [&](int64_t first_block, int64_t length) {
      tables.push_back(cache.table.data() + first_block);
      lengths.push_back(length);
    };
    add(4, 130);
    for (int64_t t = 0; t < prompt; ++t) add(0, 61 + t);
    for (int64_t t = 0; t < 3; ++t) add(4, 100 + t);
    add(0, 1);
    const auto tokens = static_cast<int64_t>(lengths.size());
    const int64_t width = h.heads * h.dim;
    const std::vector<float> query =
        test::RandomFloats(static_cast<size_t>(tokens * width), random);
    for (int64_t window : {0, 50}) {
      for (const OpTable* table : AvailableTables()) {
        cache.Store(*table);
        std::vector<float> alone(query.size());
        std::vector<float> together(query.size());
        AttentionArgs args{};
        args.query = query.data();
        args.query_stride = width;
        args.num_heads = h.heads;
        args.layer = cache.layer;
        args.block_tables = tables.data();
        args.lengths = lengths.data();
        args.window = window;
        args.scale = 0.3f;
        args.out = alone.data();
        args.out_stride = width;
        const int64_t items = tokens * h.kv_heads;
        for (int64_t item = 0; item < items; ++item) {
          args.item_begin = item;
          args.item_end = item + 1;
          table->attention(args, nullptr);
        }
        args.out = together.data();
        for (int64_t size : {items, int64_t{7}, int64_t{64}}) {
          std::fill(together.begin(), together.end(), -77.0f);
          for (int64_t begin = 0; begin < items; begin += size) {
            args.item_begin = begin;
            args.item_end = std::min(items, begin + size);
            table->attention(args, nullptr);
          }
          ASSERT_EQ(std::memcmp(alone.data(), together.data(), alone.size() * 4), 0)
              << table->name << " dim " << h.dim << " window " << window << " ranges of " << size;
        }
      }
    }
  }
}

// Of tokens that are computed together, each sees its own past only, whatever stands behind it.
TEST_P(AttentionTest, ANaNInALaterKeyOrValueDoesNotReachEarlierTokens) {
  std::mt19937 random(21);
  for (bool in_key : {true, false}) {
    Cache cache(GetParam(), 2, 40, 60, random);
    std::vector<float>& broken = in_key ? cache.keys : cache.values;
    for (int64_t i = 0; i < 80; ++i) {
      broken[static_cast<size_t>(53 * 80 + i)] = std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<int64_t> lengths;
    for (int64_t length = 45; length <= 60; ++length) lengths.push_back(length);
    const std::vector<float> query = test::RandomFloats(lengths.size() * 4 * 40, random);
    const std::vector<const uint32_t*> tables(lengths.size(), cache.table.data());
    for (const OpTable* table : AvailableTables()) {
      cache.Store(*table);
      std::vector<float> out(query.size());
      table->attention({query.data(), 160, 4, cache.layer, tables.data(), lengths.data(), 0, 0.2f,
                        0, out.data(), 160, 0, static_cast<int64_t>(lengths.size()) * 2},
                       nullptr);
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(std::isnan(out[i]), lengths[i / 160] > 53) << table->name << " " << i;
      }
    }
  }
}

TEST_P(AttentionTest, ANaNReachesItsHeadAndNoOther) {
  std::mt19937 random(16);
  Cache cache(GetParam(), 2, 8, 40, random);
  std::vector<float> query = test::RandomFloats(4 * 8, random);
  query[8 + 3] = std::numeric_limits<float>::quiet_NaN();
  for (const OpTable* table : AvailableTables()) {
    cache.Store(*table);
    const int64_t length = 40;
    const uint32_t* block_table = cache.table.data();
    std::vector<float> out(4 * 8);
    table->attention(
        {query.data(), 32, 4, cache.layer, &block_table, &length, 0, 1.0f, 0, out.data(), 32, 0, 2},
        nullptr);
    for (size_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(std::isnan(out[i]), i / 8 == 1) << table->name << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionTest, testing::Values(KvType::kF32, KvType::kF16),
                         [](const testing::TestParamInfo<KvType>& info) {
                           return info.param == KvType::kF32 ? "f32" : "f16";
                         });

}  // namespace
}  // namespace sluice
