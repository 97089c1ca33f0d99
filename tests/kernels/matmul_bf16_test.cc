// Products in bf16, every table that has them, every weight type, awkward sizes: against float64
// within a bound from the roundings, and against the same call cut differently, to the bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "kernels/cpu_features.h"
#include "kernels/select.h"
#include "tests/support/amx_emulation/emulated_tiles.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using test::EmulatedTiles;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr uint32_t kGuard = 0x7fedcba9;  // a NaN that no kernel makes

std::vector<const OpTable*> TestedTables() {
  std::vector<const OpTable*> tables;
  for (const OpTable* table : AvailableTables()) {
    if (CheckBf16(*table).ok()) tables.push_back(table);
  }
  if (CpuHasAvx512Bf16()) tables.push_back(&test::EmulatedAmxTable());
  return tables;
}

struct Case {
  test::WeightMatrix matrix;
  int64_t rows = 0, cols = 0, tokens = 0, x_stride = 0, y_stride = 0;
  std::vector<float> x, bias, y_before;
  bool has_bias = false, add_to_y = false;
  int64_t block_begin = 0, block_end = 0;
};

Case MakeCase(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens, uint32_t seed) {
  std::mt19937 random(seed);
  cols = test::ColsFor(type, cols);
  Case c;
  c.matrix = test::RandomMatrix(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), 16,
                                random);
  c.rows = rows;
  c.cols = cols;
  c.tokens = tokens;
  c.x_stride = cols + static_cast<int64_t>(random() % 3);
  c.y_stride = rows + 1 + static_cast<int64_t>(random() % 5);
  c.x = test::RandomFloats(static_cast<size_t>(tokens * c.x_stride), random);
  c.bias = test::RandomFloats(static_cast<size_t>(rows), random);
  c.y_before = test::RandomFloats(static_cast<size_t>(tokens * c.y_stride), random);
  c.has_bias = random() % 2 == 0;
  c.add_to_y = random() % 2 == 0;
  const int64_t blocks = (cols + 127) / 128;
  c.block_end = blocks;
  if (random() % 3 == 0) {
    c.block_begin = static_cast<int64_t>(random() % static_cast<uint32_t>(blocks));
    c.block_end = c.block_begin + 1 +
                  static_cast<int64_t>(random() % static_cast<uint32_t>(blocks - c.block_begin));
  }
  return c;
}

std::string Describe(const OpTable& table, const Case& c) {
  return std::string(table.name) + " " + WeightTypeName(c.matrix.layout.type) + " " +
         std::to_string(c.rows) + "x" + std::to_string(c.cols) + " tokens " +
         std::to_string(c.tokens) + " blocks " + std::to_string(c.block_begin) + ".." +
         std::to_string(c.block_end);
}

// Rounded activations, two ranges of tokens at a time; every element has a value.
std::vector<uint16_t> Round(const OpTable& table, const std::vector<float>& x, int64_t x_stride,
                            int64_t cols, int64_t tokens) {
  const int64_t padded = (cols + 31) / 32 * 32;
  std::vector<uint16_t> values(static_cast<size_t>((tokens + 15) / 16 * 16 * padded), 0x7fc1);
  const int64_t middle = tokens / 3;
  table.round_bf16({x.data(), x_stride, cols, tokens, {values.data(), padded}, middle, tokens},
                   nullptr);
  table.round_bf16({x.data(), x_stride, cols, tokens, {values.data(), padded}, 0, middle}, nullptr);
  return values;
}

// y of the tokens [token_begin, token_end), tiles `step` at a time; checks what must stay.
std::vector<float> Multiply(const OpTable& table, const Case& c, int64_t token_begin,
                            int64_t token_end, int64_t step) {
  const int64_t tokens = token_end - token_begin;
  const TileLayout& layout = c.matrix.layout;
  // Exactly as long as the last token needs it, so that a sanitizer sees what is read beyond.
  const std::vector<float> x(c.x.begin() + token_begin * c.x_stride,
                             c.x.begin() + (token_end - 1) * c.x_stride + c.cols);
  std::vector<uint16_t> values = Round(table, x, c.x_stride, c.cols, tokens);
  const Bf16Activations xb = {values.data(), (c.cols + 31) / 32 * 32};
  std::vector<float> y(c.y_before.begin() + token_begin * c.y_stride,
                       c.y_before.begin() + token_end * c.y_stride);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = c.rows; row < c.y_stride; ++row) {
      y[static_cast<size_t>(t * c.y_stride + row)] = std::bit_cast<float>(kGuard);
    }
  }
  const auto num_tiles = static_cast<int64_t>(layout.num_tiles);
  for (int64_t tile = 0; tile < num_tiles; tile += step) {
    MatmulArgs args{};
    args.layout = &layout;
    args.tiles = c.matrix.tiles.data() + tile * static_cast<int64_t>(layout.tile_bytes);
    args.num_tiles = std::min(step, num_tiles - tile);
    args.rows = std::min(args.num_tiles * 16, c.rows - tile * 16);
    args.x_bf16 = &xb;
    args.tokens = tokens;
    args.bias = c.has_bias ? c.bias.data() + tile * 16 : nullptr;
    args.add_to_y = c.add_to_y;
    args.y = y.data() + tile * 16;
    args.y_stride = c.y_stride;
    args.block_begin = c.block_begin;
    args.block_end = c.block_end;
    table.matmul_bf16(args, nullptr);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = c.rows; row < c.y_stride; ++row) {
      const float guard = y[static_cast<size_t>(t * c.y_stride + row)];
      EXPECT_EQ(std::bit_cast<uint32_t>(guard), kGuard) << Describe(table, c) << " wrote " << row;
    }
  }
  return y;
}

// The sums for a token and a row that bounds are made of.
struct Sums {
  double exact = 0;
  double magnitude = 0;  // of the rounded operands' products, bias and what was there
  double rounding = 0;   // by which rounding the operands changes the result, at most
};

// bf16 has eight bits, so rounding an operand errs by at most 2^-8 of it. Before that a weight has
// two float32 roundings, relative to the sum of its terms. Numbers below 2^-126 may count as zero.
Sums SumsOf(const Case& c, int64_t token, int64_t row) {
  constexpr double kRounding = 0x1p-8;
  constexpr double kTiny = 0x1p-126;
  const bool exact_weights = c.matrix.layout.type.kind == WeightKind::kBF16;
  Sums sums;
  for (int64_t k = c.block_begin * 128; k < std::min(c.cols, c.block_end * 128); ++k) {
    const test::ExactWeight w =
        test::WeightAt(c.matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k));
    const double x = c.x[static_cast<size_t>(token * c.x_stride + k)];
    const double w_error =
        exact_weights ? 0 : kRounding * std::fabs(w.value) + 2 * kEpsilon * w.magnitude;
    const double x_error = kRounding * std::fabs(x);
    sums.exact += w.value * x;
    sums.magnitude += (std::fabs(w.value) + w_error) * (std::fabs(x) + x_error);
    sums.rounding += w_error * (std::fabs(x) + x_error) + std::fabs(w.value) * x_error +
                     kTiny * (std::fabs(x) + w.magnitude + 1);
  }
  const float bias = c.has_bias ? c.bias[static_cast<size_t>(row)] : 0;
  const float before = c.add_to_y ? c.y_before[static_cast<size_t>(token * c.y_stride + row)] : 0;
  sums.exact += double{bias} + before;
  sums.magnitude += std::fabs(bias) + std::fabs(before);
  return sums;
}

// Float32 sums of n terms are off by at most n epsilon times the sum of their magnitudes. Beside
// that rounding matters only against float64: `ref` rounds the same operands, but for weights with
// a minimum, which it computes with one rounding more and so may round to the other side.
void ExpectNear(const OpTable& table, const Case& c, const std::vector<float>& y,
                const std::vector<float>& of_ref) {
  const bool same_operands = c.matrix.layout.type.offset != WeightOffset::kMinimum;
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const Sums sums = SumsOf(c, t, row);
      const size_t at = static_cast<size_t>(t * c.y_stride + row);
      const double of_sums = static_cast<double>(c.cols + 8) * kEpsilon * sums.magnitude;
      const double bound = sums.rounding + of_sums;
      ASSERT_TRUE(std::fabs(y[at] - sums.exact) <= bound)
          << Describe(table, c) << " token " << t << " row " << row << ": " << y[at] << ", not "
          << sums.exact << " +- " << bound;
      if (!same_operands) continue;
      ASSERT_TRUE(std::fabs(double{y[at]} - of_ref[at]) <= 2 * of_sums + 1e-36)
          << Describe(table, c) << " token " << t << " row " << row << ": " << y[at] << ", ref "
          << of_ref[at] << " +- " << 2 * of_sums;
    }
  }
}

void ExpectAllNear(const Case& c) {
  const std::vector<float> of_ref = Multiply(kRefTable, c, 0, c.tokens, 1000);
  for (const OpTable* table : TestedTables()) {
    const std::vector<float> y = Multiply(*table, c, 0, c.tokens, 1000);
    ASSERT_NO_FATAL_FAILURE(ExpectNear(*table, c, y, of_ref));
  }
}

class MatmulBf16Test : public testing::TestWithParam<WeightType> {};

TEST_P(MatmulBf16Test, IsWithinTheBoundOfItsRoundingsAtAwkwardSizes) {
  uint32_t seed = 1 + 1000 * static_cast<uint32_t>(GetParam().group_size);
  int64_t rows = 1, tokens = 1;
  for (int64_t cols : {1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 255, 257, 576, 1537}) {
    for (int repeat = 0; repeat < (cols > 500 ? 2 : 5); ++repeat) {
      const Case c = MakeCase(GetParam(), rows, cols, tokens, ++seed);
      rows = rows % 49 + 1;
      tokens = tokens % 35 + 1;
      ASSERT_NO_FATAL_FAILURE(ExpectAllNear(c));
    }
  }
}

TEST_P(MatmulBf16Test, EveryNumberOfTokensAndMoreThanABatch) {
  for (int64_t tokens : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 511, 513, 530}) {
    const Case c =
        MakeCase(GetParam(), tokens > 500 ? 17 : 33, 160, tokens, static_cast<uint32_t>(tokens));
    ASSERT_NO_FATAL_FAILURE(ExpectAllNear(c));
  }
}

TEST_P(MatmulBf16Test, AResultDoesNotDependOnTheBatchOrOnTheRangesOfRows) {
  for (int64_t cols : {33, 129, 700}) {
    const Case c = MakeCase(GetParam(), 49, cols, 37, static_cast<uint32_t>(cols));
    for (const OpTable* table : TestedTables()) {
      const std::vector<float> whole = Multiply(*table, c, 0, c.tokens, 1000);
      for (int64_t batch : {1, 2, 3, 5, 8, 15, 16, 17, 33}) {
        for (int64_t begin = 0; begin < c.tokens; begin += batch) {
          const int64_t end = std::min(c.tokens, begin + batch);
          const std::vector<float> part = Multiply(*table, c, begin, end, 1 + batch % 3);
          for (size_t i = 0; i < part.size(); ++i) {
            ASSERT_EQ(std::bit_cast<uint32_t>(part[i]),
                      std::bit_cast<uint32_t>(whole[static_cast<size_t>(begin * c.y_stride) + i]))
                << Describe(*table, c) << " in batches of " << batch;
          }
        }
      }
    }
  }
}

TEST_P(MatmulBf16Test, ANaNOrInfinityStaysWithItsToken) {
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int64_t place : {0, 1, 100, 128, 160}) {
      const Case good = MakeCase(GetParam(), 20, 161, 18, 7);
      if (place < good.block_begin * 128 || place >= good.block_end * 128) continue;
      Case c = good;
      c.x[static_cast<size_t>(4 * c.x_stride + place)] = bad;
      for (const OpTable* table : TestedTables()) {
        const std::vector<float> expected = Multiply(*table, good, 0, good.tokens, 1000);
        const std::vector<float> y = Multiply(*table, c, 0, c.tokens, 1000);
        for (int64_t t = 0; t < c.tokens; ++t) {
          for (int64_t row = 0; row < c.rows; ++row) {
            const size_t at = static_cast<size_t>(t * c.y_stride + row);
            if (t == 4) {
              ASSERT_FALSE(std::isfinite(y[at])) << Describe(*table, c) << " row " << row;
            } else {
              ASSERT_EQ(y[at], expected[at]) << Describe(*table, c) << " row " << row;
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulBf16Test, testing::ValuesIn(test::AllWeightTypes()),
                         [](const testing::TestParamInfo<WeightType>& info) {
                           std::string name = WeightTypeName(info.param);
                           for (char& c : name) c = c == ':' ? '_' : c;
                           return name;
                         });

TEST(RoundBf16, EveryTableRoundsToNearestEvenAndPadsWithZeros) {
  std::mt19937 random(5);
  for (int64_t cols : {1, 31, 32, 33, 100}) {
    for (int64_t tokens : {1, 15, 16, 17, 40}) {
      std::vector<float> x = test::RandomFloats(static_cast<size_t>(tokens * cols), random);
      x[0] = 1 + 0x1p-8f;                                   // half way: to the even 1
      x[x.size() / 2] = -(1 + 3 * 0x1p-8f);                 // half way: to the even -(1 + 2^-6)
      x[x.size() - 1] = std::numeric_limits<float>::max();  // to infinity
      for (const OpTable* table : TestedTables()) {
        const std::vector<uint16_t> values = Round(*table, x, cols, cols, tokens);
        size_t at = 0;
        for (int64_t first = 0; first < tokens; first += 16) {
          for (int64_t k = 0; k < (cols + 31) / 32 * 32; k += 32) {
            for (int64_t t = first; t < first + 16; ++t) {
              for (int64_t i = k; i < k + 32; ++i) {
                const bool there = t < tokens && i < cols;
                ASSERT_EQ(values[at++],
                          there ? FloatToBf16(x[static_cast<size_t>(t * cols + i)]) : 0)
                    << table->name << " token " << t << " channel " << i;
              }
            }
          }
        }
        ASSERT_EQ(at, values.size());
      }
    }
  }
}

TEST(AmxBf16, AllProductsAreTheTiles) {
  if (!CpuHasAvx512Bf16()) GTEST_SKIP() << "no AVX-512 with BF16";
  for (const WeightType& type : test::AllWeightTypes()) {
    const Case c = MakeCase(type, 48, 768, 40, 3);
    const int64_t products = EmulatedTiles::products();
    const int64_t configurations = EmulatedTiles::configurations();
    Multiply(test::EmulatedAmxTable(), c, 0, c.tokens, 1000);
    EXPECT_EQ(EmulatedTiles::configurations() - configurations, 1);
    // Three tiles, three registers of tokens, 32 channels at a time.
    EXPECT_EQ(EmulatedTiles::products() - products, 3 * 3 * (c.block_end - c.block_begin) * 4)
        << WeightTypeName(type);
  }
}

TEST(CheckBf16, SaysWhatIsMissing) {
  EXPECT_TRUE(CheckBf16(kRefTable, false).ok());
  EXPECT_TRUE(CheckBf16(kAvx512Table, true).ok());
  EXPECT_TRUE(CheckBf16(kAmxTable, true).ok());
  for (const OpTable* table : {&kAvx512Table, &kAmxTable}) {
    const Status status = CheckBf16(*table, false);
    EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
    EXPECT_NE(status.message().find("AVX512_BF16"), std::string::npos);
  }
  const Status status = CheckBf16(kAvx2Table, true);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_NE(status.message().find("avx2"), std::string::npos);
}

TEST(CheckBf16, AgreesWithTheCompilersView) {
  EXPECT_EQ(CpuHasAvx512Bf16(), CpuHasAvx512() && __builtin_cpu_supports("avx512bf16") != 0);
}

}  // namespace
}  // namespace sluice
