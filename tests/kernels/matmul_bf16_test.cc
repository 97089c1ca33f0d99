// Products in bf16, every table that has them, every weight type, awkward sizes: against float64
// within a bound from the roundings, and against the same call cut differently, to the bit.
#include <gtest/gtest.h>

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
#include "tests/support/matmul_case.h"
#include "tests/support/sanitized.h"

namespace sluice {
namespace {

using test::EmulatedTiles;
using test::MakeMatmulCase;
using test::MatmulCase;
using test::Multiply;
using test::Products;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

std::vector<const OpTable*> TestedTables() {
  std::vector<const OpTable*> tables;
  for (const OpTable* table : AvailableTables()) {
    if (CheckBf16(*table).ok()) tables.push_back(table);
  }
  if (CpuHasAvx512Bf16()) tables.push_back(&test::EmulatedAmxTable());
  return tables;
}

// The sums for a token and a row that bounds are made of.
struct Sums {
  double exact = 0;
  double magnitude = 0;  // of the rounded operands' products, bias and what was there
  double rounding = 0;   // by which rounding the operands changes the result, at most
};

// bf16 has eight bits, so rounding an operand errs by at most 2^-8 of it. Before that a weight has
// two float32 roundings, relative to the sum of its terms. Numbers below 2^-126 may count as zero.
// [token * rows + row]
std::vector<Sums> SumsOf(const MatmulCase& c) {
  constexpr double kRounding = 0x1p-8;
  constexpr double kTiny = 0x1p-126;
  const bool exact_weights = c.type().kind == WeightKind::kBF16;
  std::vector<Sums> sums(static_cast<size_t>(c.tokens * c.rows));
  for (int64_t row = 0; row < c.rows; ++row) {
    const std::vector<test::ExactWeight> weights = test::ExactRow(c, row);
    for (int64_t t = 0; t < c.tokens; ++t) {
      const float* at = c.x.data() + t * c.x_stride + c.channel_begin();
      Sums& s = sums[static_cast<size_t>(t * c.rows + row)];
      for (const test::ExactWeight& w : weights) {
        const double x = *at++;
        const double w_error =
            exact_weights ? 0 : kRounding * std::fabs(w.value) + 2 * kEpsilon * w.magnitude;
        const double x_error = kRounding * std::fabs(x);
        s.exact += w.value * x;
        s.magnitude += (std::fabs(w.value) + w_error) * (std::fabs(x) + x_error);
        s.rounding += w_error * (std::fabs(x) + x_error) + std::fabs(w.value) * x_error +
                      kTiny * (std::fabs(x) + w.magnitude + 1);
      }
      const float bias = c.BiasOf(row);
      const float before = c.BeforeOf(t, row);
      s.exact += double{bias} + before;
      s.magnitude += std::fabs(bias) + std::fabs(before);
    }
  }
  return sums;
}

// Float32 sums of n terms are off by at most n epsilon times the sum of their magnitudes. Beside
// that rounding matters only against float64: `ref` rounds the same operands, but for weights with
// a minimum, which it computes with one rounding more and so may round to the other side.
void ExpectNear(const OpTable& table, const MatmulCase& c, const std::vector<Sums>& sums,
                const std::vector<float>& y, const std::vector<float>& of_ref) {
  const bool same_operands = c.type().offset != WeightOffset::kMinimum;
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const Sums& s = sums[static_cast<size_t>(t * c.rows + row)];
      const size_t at = c.At(t, row);
      const double of_sums = static_cast<double>(c.cols + 8) * kEpsilon * s.magnitude;
      const double bound = s.rounding + of_sums;
      ASSERT_TRUE(std::fabs(y[at] - s.exact) <= bound)
          << test::Describe(table, c) << " token " << t << " row " << row << ": " << y[at]
          << ", not " << s.exact << " +- " << bound;
      if (!same_operands) continue;
      ASSERT_TRUE(std::fabs(double{y[at]} - of_ref[at]) <= 2 * of_sums + 1e-36)
          << test::Describe(table, c) << " token " << t << " row " << row << ": " << y[at]
          << ", ref " << of_ref[at] << " +- " << 2 * of_sums;
    }
  }
}

void ExpectAllNear(const MatmulCase& c) {
  const std::vector<Sums> sums = SumsOf(c);
  const std::vector<float> of_ref = Multiply(kRefTable, c, Products::kMatmulBf16);
  for (const OpTable* table : TestedTables()) {
    const std::vector<float> y = Multiply(*table, c, Products::kMatmulBf16);
    ASSERT_NO_FATAL_FAILURE(ExpectNear(*table, c, sums, y, of_ref));
  }
}

class MatmulBf16Test : public testing::TestWithParam<WeightType> {};

TEST_P(MatmulBf16Test, IsWithinTheBoundOfItsRoundingsAtAwkwardSizes) {
  uint32_t seed = 1 + 1000 * static_cast<uint32_t>(GetParam().group_size);
  int64_t rows = 1, tokens = 1;
  for (int64_t cols : {1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 255, 257, 576, 1537}) {
    for (int repeat = 0; repeat < (cols > 500 ? 2 : 5); ++repeat) {
      const MatmulCase c = MakeMatmulCase(GetParam(), rows, cols, tokens, ++seed);
      rows = rows % 49 + 1;
      tokens = tokens % 35 + 1;
      ASSERT_NO_FATAL_FAILURE(ExpectAllNear(c));
    }
  }
}

TEST_P(MatmulBf16Test, EveryNumberOfTokensAndMoreThanABatch) {
  for (int64_t tokens : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 511, 513, 530}) {
    ASSERT_NO_FATAL_FAILURE(ExpectAllNear(MakeMatmulCase(GetParam(), tokens > 500 ? 17 : 33, 160,
                                                         tokens, static_cast<uint32_t>(tokens))));
  }
}

TEST_P(MatmulBf16Test, AResultDoesNotDependOnTheBatchOrOnTheRangesOfRows) {
  constexpr int64_t kBatches[] = {1, 2, 3, 5, 8, 15, 16, 17, 33};
  for (int64_t cols : {33, 129, 700}) {
    if (test::kSanitized && cols > 500) continue;
    const MatmulCase c = MakeMatmulCase(GetParam(), 49, cols, 37, static_cast<uint32_t>(cols));
    for (const OpTable* table : TestedTables()) {
      ASSERT_NO_FATAL_FAILURE(
          test::ExpectTheSameInBatches(*table, c, Products::kMatmulBf16, kBatches));
    }
  }
}

TEST_P(MatmulBf16Test, ANaNOrInfinityStaysWithItsToken) {
  const MatmulCase c = MakeMatmulCase(GetParam(), 20, 161, 18, 7);
  for (const OpTable* table : TestedTables()) {
    ASSERT_NO_FATAL_FAILURE(
        test::ExpectNoNumbersToStayWithTheirToken(*table, c, Products::kMatmulBf16));
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
        const std::vector<uint16_t> values = test::RoundedToBf16(*table, x, cols, cols, tokens);
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
    const MatmulCase c = MakeMatmulCase(type, 48, 768, 40, 3);
    const int64_t products = EmulatedTiles::products();
    const int64_t configurations = EmulatedTiles::configurations();
    Multiply(test::EmulatedAmxTable(), c, Products::kMatmulBf16);
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
