// Every table, every weight type and awkward sizes: against float64, against the numeric contract
// to the bit, and against the same call cut differently.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/matmul_case.h"
#include "tests/support/numeric_contract.h"
#include "tests/support/sanitized.h"

namespace sluice {
namespace {

using test::ActivationBuffer;
using test::MakeMatmulCase;
using test::MatmulCase;
using test::Multiply;
using test::Products;

constexpr int64_t kCols[] = {1,   2,   31,  32,  33,  63,  64,  65,  96,
                             127, 128, 129, 160, 255, 257, 576, 1536};
constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

// Those that run here, and with AVX-512 the kernels for AMX in emulation.
const std::vector<const OpTable*>& TestedTables() {
  static const std::vector<const OpTable*> tables = [] {
    std::vector<const OpTable*> all = AvailableTables();
    if (SelectTable("avx512").ok()) all.push_back(&test::EmulatedAmxTable());
    return all;
  }();
  return tables;
}

// What bounds are made of, for a token and a row.
struct Sums {
  double exact = 0;
  double magnitude = 0;  // of the products' terms, bias and what was there
  // What quantized activations add to the magnitude, and by how much they change the result.
  double step_magnitude = 0, step_error = 0;
};

// |x - S i| <= S / 2 for each quantized channel, but for the rounding of S and of its inverse.
// [token * rows + row]
std::vector<Sums> SumsOf(const MatmulCase& c) {
  std::vector<Sums> sums(static_cast<size_t>(c.tokens * c.rows));
  ActivationBuffer buffer(c.tokens, c.cols, ActivationGroup(c.type()));
  for (int64_t t = 0; t < c.tokens; ++t) {
    test::ContractQuantize(c.x.data() + t * c.x_stride, c.cols, t, &buffer);
  }
  for (int64_t row = 0; row < c.rows; ++row) {
    const std::vector<test::ExactWeight> weights = test::ExactRow(c, row);
    for (int64_t t = 0; t < c.tokens; ++t) {
      const float* x = c.x.data() + t * c.x_stride + c.channel_begin();
      const float* scales = buffer.scales.data() + t * buffer.groups;
      Sums& s = sums[static_cast<size_t>(t * c.rows + row)];
      int64_t k = c.channel_begin();
      for (const test::ExactWeight& w : weights) {
        const double step = scales[k / buffer.group_size];
        s.exact += w.value * *x;
        s.magnitude += w.magnitude * std::fabs(*x);
        s.step_magnitude += w.magnitude * step;
        s.step_error += std::fabs(w.value) * step * (0.5 + 127 * 4 * kEpsilon);
        ++x, ++k;
      }
      const float bias = c.BiasOf(row);
      const float before = c.BeforeOf(t, row);
      s.exact += double{bias} + before;
      s.magnitude += std::fabs(bias) + std::fabs(before);
    }
  }
  return sums;
}

// Float32 sums of n terms are off by at most n epsilon times the sum of their magnitudes.
void ExpectNearFloat64(const OpTable& table, const MatmulCase& c, const std::vector<Sums>& sums,
                       const std::vector<float>& y) {
  const bool quantized = table.activations(c.type()) == ActivationForm::kQuantized;
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const Sums& s = sums[static_cast<size_t>(t * c.rows + row)];
      const double magnitude = s.magnitude + (quantized ? s.step_magnitude : 0);
      const double bound = (quantized ? s.step_error : 0) +
                           static_cast<double>(c.channel_end() + 8) * kEpsilon * magnitude;
      const float actual = y[c.At(t, row)];
      ASSERT_TRUE(std::fabs(actual - s.exact) <= bound)
          << test::Describe(table, c) << " token " << t << " row " << row << ": " << actual
          << ", not " << s.exact;
    }
  }
}

// As y is laid out.
std::vector<float> ContractOf(const MatmulCase& c) {
  std::vector<float> expected(c.y_before.size());
  ActivationBuffer buffer(1, c.cols, ActivationGroup(c.type()));
  for (int64_t t = 0; t < c.tokens; ++t) {
    const float* x = c.x.data() + t * c.x_stride;
    test::ContractQuantize(x, c.cols, 0, &buffer);
    for (int64_t row = 0; row < c.rows; ++row) {
      float sum =
          c.type().quantized()
              ? test::ContractQuantizedDot(c.matrix, row, buffer, 0, c.block_begin, c.block_end)
              : test::ContractFloatDot(c.matrix, row, x, c.block_begin, c.block_end);
      if (c.has_bias) sum = sum + c.BiasOf(row);
      if (c.add_to_y) sum = sum + c.BeforeOf(t, row);
      expected[c.At(t, row)] = sum;
    }
  }
  return expected;
}

void ExpectContract(const OpTable& table, const MatmulCase& c, const std::vector<float>& contract,
                    const std::vector<float>& y) {
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const size_t at = c.At(t, row);
      ASSERT_TRUE(test::SameBits(y[at], contract[at]))
          << test::Describe(table, c) << " token " << t << " row " << row << ": " << y[at]
          << ", not " << contract[at];
    }
  }
}

void ExpectCorrectOnEveryTable(const MatmulCase& c) {
  const std::vector<Sums> sums = SumsOf(c);
  const std::vector<float> contract = ContractOf(c);
  for (const OpTable* table : TestedTables()) {
    const std::vector<float> y = Multiply(*table, c, Products::kMatmul);
    ASSERT_NO_FATAL_FAILURE(ExpectNearFloat64(*table, c, sums, y));
    if (table == &kRefTable) continue;
    ASSERT_NO_FATAL_FAILURE(ExpectContract(*table, c, contract, y));
  }
}

class MatmulTest : public testing::TestWithParam<WeightType> {};

TEST_P(MatmulTest, EveryTableMeetsTheContractAtAwkwardSizes) {
  uint32_t seed = 1 + 1000 * static_cast<uint32_t>(GetParam().group_size);
  int64_t next_rows = 1;
  int64_t next_tokens = 1;
  for (int64_t cols : kCols) {
    for (int repeat = 0; repeat < (cols > 500 ? 2 : 6); ++repeat) {
      const MatmulCase c = MakeMatmulCase(GetParam(), next_rows, cols, next_tokens, ++seed);
      next_rows = next_rows % 49 + 1;
      next_tokens = next_tokens % 33 + 1;
      ASSERT_NO_FATAL_FAILURE(ExpectCorrectOnEveryTable(c));
    }
  }
}

TEST_P(MatmulTest, EveryNumberOfTokensAndEveryPrimeOfRows) {
  for (int64_t tokens = 1; tokens <= 70; tokens += tokens < 34 ? 1 : 7) {
    ASSERT_NO_FATAL_FAILURE(ExpectCorrectOnEveryTable(
        MakeMatmulCase(GetParam(), 17, 160, tokens, static_cast<uint32_t>(tokens))));
  }
  for (int64_t rows : {1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 97, 127}) {
    for (int64_t tokens : {1, 2, 3}) {  // which take several tiles together
      ASSERT_NO_FATAL_FAILURE(ExpectCorrectOnEveryTable(
          MakeMatmulCase(GetParam(), rows, 161, tokens, static_cast<uint32_t>(rows))));
    }
  }
}

TEST_P(MatmulTest, AResultDoesNotDependOnTheBatchOrOnTheRangesOfRows) {
  constexpr int64_t kBatches[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17};
  for (int64_t cols : {33, 129, 576}) {
    if (test::kSanitized && cols > 500) continue;
    const MatmulCase c = MakeMatmulCase(GetParam(), 49, cols, 33, static_cast<uint32_t>(cols));
    for (const OpTable* table : TestedTables()) {
      ASSERT_NO_FATAL_FAILURE(test::ExpectTheSameInBatches(*table, c, Products::kMatmul, kBatches));
    }
  }
}

TEST_P(MatmulTest, ANaNOrInfinityStaysWithItsToken) {
  const MatmulCase c = MakeMatmulCase(GetParam(), 20, 161, 6, 7);
  for (const OpTable* table : TestedTables()) {
    ASSERT_NO_FATAL_FAILURE(
        test::ExpectNoNumbersToStayWithTheirToken(*table, c, Products::kMatmul));
  }
}

TEST_P(MatmulTest, ZerosGiveTheBias) {
  MatmulCase c = MakeMatmulCase(GetParam(), 33, 160, 5, 3);
  c.x.assign(c.x.size(), 0.0f);
  c.has_bias = true;
  c.add_to_y = false;
  for (const OpTable* table : TestedTables()) {
    const std::vector<float> y = Multiply(*table, c, Products::kMatmul);
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t row = 0; row < 33; ++row) ASSERT_EQ(y[c.At(t, row)], c.BiasOf(row));
    }
  }
}

// The largest sums of products that there can be: nothing may saturate.
TEST_P(MatmulTest, TheLargestIntegersAreSummedExactly) {
  if (!GetParam().quantized()) return;  // float weights have no integers
  for (const bool negative : {false, true}) {
    for (const uint32_t value : {0u, 1u, 127u, 128u, 255u}) {
      MatmulCase c = MakeMatmulCase(GetParam(), 16, 256, 5, 9);
      for (size_t row = 0; row < 16; ++row) {
        test::WeightRow& codes = c.matrix.rows[row];
        codes.values.assign(256, value % (1u << IntegerBits(GetParam().kind)));
        std::fill_n(c.matrix.tiles.begin(), row == 0 ? c.matrix.tiles.size() : 0, std::byte{0});
        PackRow(c.matrix.layout, static_cast<uint32_t>(row), codes.codes(), c.matrix.tiles.data());
      }
      c.x.assign(c.x.size(), negative ? -3.0f : 3.0f);
      ASSERT_NO_FATAL_FAILURE(ExpectCorrectOnEveryTable(c));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTest, testing::ValuesIn(test::AllWeightTypes()),
                         [](const testing::TestParamInfo<WeightType>& info) {
                           std::string name = WeightTypeName(info.param);
                           for (char& c : name) c = c == ':' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace sluice
