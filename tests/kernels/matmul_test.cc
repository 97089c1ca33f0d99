// Every table, every weight type and awkward sizes: against float64, against the numeric contract
// to the bit, and against the same call cut differently.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using test::ActivationBuffer;
using test::WeightMatrix;

constexpr int64_t kCols[] = {1,   2,   31,  32,  33,  63,  64,  65,  96,
                             127, 128, 129, 160, 255, 257, 576, 1536};
constexpr uint32_t kGuard = 0x7fedcba9;  // a NaN that no kernel makes
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

struct Case {
  WeightMatrix matrix;
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
         std::to_string(c.tokens) + (c.has_bias ? " bias" : "") + (c.add_to_y ? " add" : "") +
         " blocks " + std::to_string(c.block_begin) + ".." + std::to_string(c.block_end);
}

// y of the tokens [token_begin, token_end), tiles `step` at a time; checks what must stay.
std::vector<float> Multiply(const OpTable& table, const Case& c, int64_t token_begin,
                            int64_t token_end, int64_t step) {
  const int64_t tokens = token_end - token_begin;
  const TileLayout& layout = c.matrix.layout;
  // Exactly as long as the last token needs it, so that a sanitizer sees what is read beyond.
  const std::vector<float> x(c.x.begin() + token_begin * c.x_stride,
                             c.x.begin() + (token_end - 1) * c.x_stride + c.cols);
  ActivationBuffer buffer(tokens, c.cols, ActivationGroup(layout.type));
  const QuantizedActivations xq = buffer.view();
  const bool quantized = table.activations(layout.type) == ActivationForm::kQuantized;
  if (quantized) table.quantize({x.data(), c.x_stride, c.cols, xq, 0, tokens}, nullptr);
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
    args.x = quantized ? nullptr : x.data();
    args.x_stride = c.x_stride;
    args.xq = quantized ? &xq : nullptr;
    args.tokens = tokens;
    args.bias = c.has_bias ? c.bias.data() + tile * 16 : nullptr;
    args.add_to_y = c.add_to_y;
    args.y = y.data() + tile * 16;
    args.y_stride = c.y_stride;
    args.block_begin = c.block_begin;
    args.block_end = c.block_end;
    table.matmul(args, nullptr);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = c.rows; row < c.y_stride; ++row) {
      const float guard = y[static_cast<size_t>(t * c.y_stride + row)];
      EXPECT_EQ(std::bit_cast<uint32_t>(guard), kGuard) << Describe(table, c) << " wrote " << row;
    }
  }
  return y;
}

// |x - S i| <= S / 2 for each quantized channel, but for the rounding of S and of its inverse; and
// float32 sums of n terms are off by at most n epsilon times the sum of their magnitudes.
void ExpectNearFloat64(const OpTable& table, const Case& c, const std::vector<float>& y) {
  const TileLayout& layout = c.matrix.layout;
  const bool quantized = table.activations(layout.type) == ActivationForm::kQuantized;
  ActivationBuffer buffer(1, c.cols, ActivationGroup(layout.type));
  const int64_t end = std::min(c.cols, c.block_end * 128);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const float* x = c.x.data() + t * c.x_stride;
    test::ContractQuantize(x, c.cols, 0, &buffer);
    for (int64_t row = 0; row < c.rows; ++row) {
      double exact = 0;
      double magnitude = 0;
      double step_error = 0;
      for (int64_t k = c.block_begin * 128; k < end; ++k) {
        const test::ExactWeight w =
            test::WeightAt(c.matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k));
        const double step =
            quantized ? buffer.scales[static_cast<size_t>(k / buffer.group_size)] : 0;
        exact += w.value * x[k];
        magnitude += w.magnitude * (std::fabs(x[k]) + step);
        step_error += std::fabs(w.value) * step * (0.5 + 127 * 4 * kEpsilon);
      }
      const float bias = c.has_bias ? c.bias[static_cast<size_t>(row)] : 0;
      const size_t at = static_cast<size_t>(t * c.y_stride + row);
      const float before = c.add_to_y ? c.y_before[at] : 0;
      exact += double{bias} + before;
      magnitude += std::fabs(bias) + std::fabs(before);
      const double bound = step_error + static_cast<double>(end + 8) * kEpsilon * magnitude;
      const double difference = std::fabs(y[at] - exact);
      ASSERT_TRUE(difference <= bound) << Describe(table, c) << " token " << t << " row " << row
                                       << ": " << y[at] << ", not " << exact;
    }
  }
}

void ExpectContract(const OpTable& table, const Case& c, const std::vector<float>& y) {
  const TileLayout& layout = c.matrix.layout;
  ActivationBuffer buffer(1, c.cols, ActivationGroup(layout.type));
  for (int64_t t = 0; t < c.tokens; ++t) {
    const float* x = c.x.data() + t * c.x_stride;
    test::ContractQuantize(x, c.cols, 0, &buffer);
    for (int64_t row = 0; row < c.rows; ++row) {
      float expected =
          layout.type.quantized()
              ? test::ContractQuantizedDot(c.matrix, row, buffer, 0, c.block_begin, c.block_end)
              : test::ContractFloatDot(c.matrix, row, x, c.block_begin, c.block_end);
      const size_t at = static_cast<size_t>(t * c.y_stride + row);
      if (c.has_bias) expected = expected + c.bias[static_cast<size_t>(row)];
      if (c.add_to_y) expected = expected + c.y_before[at];
      ASSERT_TRUE(test::SameBits(y[at], expected))
          << Describe(table, c) << " token " << t << " row " << row << ": " << y[at] << ", not "
          << expected;
    }
  }
}

void ExpectCorrect(const OpTable& table, const Case& c) {
  const std::vector<float> y = Multiply(table, c, 0, c.tokens, 1000);
  ASSERT_NO_FATAL_FAILURE(ExpectNearFloat64(table, c, y));
  if (std::string(table.name) == "ref") return;
  ASSERT_NO_FATAL_FAILURE(ExpectContract(table, c, y));
}

class MatmulTest : public testing::TestWithParam<WeightType> {};

TEST_P(MatmulTest, EveryTableMeetsTheContractAtAwkwardSizes) {
  uint32_t seed = 1 + 1000 * static_cast<uint32_t>(GetParam().group_size);
  int64_t next_rows = 1;
  int64_t next_tokens = 1;
  for (int64_t cols : kCols) {
    for (int repeat = 0; repeat < (cols > 500 ? 2 : 6); ++repeat) {
      const Case c = MakeCase(GetParam(), next_rows, cols, next_tokens, ++seed);
      next_rows = next_rows % 49 + 1;
      next_tokens = next_tokens % 33 + 1;
      for (const OpTable* table : TestedTables()) {
        ASSERT_NO_FATAL_FAILURE(ExpectCorrect(*table, c));
      }
    }
  }
}

TEST_P(MatmulTest, EveryNumberOfTokensAndEveryPrimeOfRows) {
  for (int64_t tokens = 1; tokens <= 70; tokens += tokens < 34 ? 1 : 7) {
    const Case c = MakeCase(GetParam(), 17, 160, tokens, static_cast<uint32_t>(tokens));
    for (const OpTable* table : TestedTables()) {
      ASSERT_NO_FATAL_FAILURE(ExpectCorrect(*table, c));
    }
  }
  for (int64_t rows : {1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 97, 127}) {
    const Case c = MakeCase(GetParam(), rows, 161, 3, static_cast<uint32_t>(rows));
    for (const OpTable* table : TestedTables()) {
      ASSERT_NO_FATAL_FAILURE(ExpectCorrect(*table, c));
    }
  }
}

TEST_P(MatmulTest, AResultDoesNotDependOnTheBatchOrOnTheRangesOfRows) {
  for (int64_t cols : {33, 129, 576}) {
    const Case c = MakeCase(GetParam(), 49, cols, 33, static_cast<uint32_t>(cols));
    for (const OpTable* table : TestedTables()) {
      const std::vector<float> whole = Multiply(*table, c, 0, c.tokens, 1000);
      for (int64_t batch : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17}) {
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

TEST_P(MatmulTest, ANaNOrInfinityStaysWithItsToken) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), infinity}) {
    for (int64_t place : {0, 1, 100, 128, 160}) {
      const Case good = MakeCase(GetParam(), 20, 161, 6, 7);
      if (place < good.block_begin * 128 || place >= good.block_end * 128) continue;
      Case c = good;
      c.x[static_cast<size_t>(4 * c.x_stride + place)] = bad;
      for (const OpTable* table : TestedTables()) {
        const std::vector<float> expected = Multiply(*table, good, 0, 6, 1000);
        const std::vector<float> y = Multiply(*table, c, 0, 6, 1000);
        for (int64_t t = 0; t < 6; ++t) {
          for (int64_t row = 0; row < 20; ++row) {
            const size_t at = static_cast<size_t>(t * c.y_stride + row);
            if (t != 4) {
              ASSERT_TRUE(test::SameBits(y[at], expected[at])) << Describe(*table, c);
            } else {
              ASSERT_FALSE(std::isfinite(y[at])) << Describe(*table, c) << " row " << row;
            }
          }
        }
      }
    }
  }
}

TEST_P(MatmulTest, ZerosGiveTheBias) {
  Case c = MakeCase(GetParam(), 33, 160, 5, 3);
  c.x.assign(c.x.size(), 0.0f);
  c.has_bias = true;
  c.add_to_y = false;
  for (const OpTable* table : TestedTables()) {
    const std::vector<float> y = Multiply(*table, c, 0, 5, 1000);
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t row = 0; row < 33; ++row) {
        ASSERT_EQ(y[static_cast<size_t>(t * c.y_stride + row)], c.bias[static_cast<size_t>(row)]);
      }
    }
  }
}

// The largest sums of products that there can be: nothing may saturate.
TEST_P(MatmulTest, TheLargestIntegersAreSummedExactly) {
  if (!GetParam().quantized()) return;  // float weights have no integers
  for (const bool negative : {false, true}) {
    for (const uint32_t value : {0u, 1u, 127u, 128u, 255u}) {
      Case c = MakeCase(GetParam(), 16, 256, 5, 9);
      for (size_t row = 0; row < 16; ++row) {
        test::WeightRow& codes = c.matrix.rows[row];
        codes.values.assign(256, value % (1u << IntegerBits(GetParam().kind)));
        std::fill_n(c.matrix.tiles.begin(), row == 0 ? c.matrix.tiles.size() : 0, std::byte{0});
        PackRow(c.matrix.layout, static_cast<uint32_t>(row), codes.codes(), c.matrix.tiles.data());
      }
      c.x.assign(c.x.size(), negative ? -3.0f : 3.0f);
      for (const OpTable* table : TestedTables()) {
        ASSERT_NO_FATAL_FAILURE(ExpectCorrect(*table, c));
      }
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
