// What products in f16 need beside the product, emulated: panels of weights, activations, and the
// powers of two between them, against the file's own dequantization to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/f16_products.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "tests/support/numeric_contract.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;
using test::WeightMatrix;

constexpr uint16_t kUntouched = 0x7bcd;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

void ExpectUnpacked(const WeightType& type, int64_t rows, int64_t some_cols, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t cols = test::ColsFor(type, some_cols);
  SCOPED_TRACE(WeightTypeName(type) + " " + std::to_string(rows) + " x " + std::to_string(cols));
  const WeightMatrix matrix = test::RandomMatrix(type, static_cast<uint64_t>(rows),
                                                 static_cast<uint64_t>(cols), 16, random);
  const GpuLayout gpu = *MakeGpuLayout(matrix.layout);
  const auto num_tiles = static_cast<int64_t>(matrix.layout.num_tiles);
  std::vector<std::byte> tiles(static_cast<size_t>(num_tiles * gpu.tile_bytes));
  RepackForGpu(matrix.layout, matrix.tiles.data(), num_tiles, gpu, tiles.data());
  const int64_t width = (cols + 31) / 32 * 32;
  const auto values = static_cast<size_t>(num_tiles * 16 * width);
  std::vector<uint16_t> panel(values + 8, kUntouched);
  kCudaTable.unpack_f16({&matrix.layout, tiles.data(), num_tiles, panel.data()}, nullptr);
  std::vector<float> expected(static_cast<size_t>(cols));
  for (int64_t row = 0; row < num_tiles * 16; ++row) {
    if (row < rows) {
      DequantizeRow(
          matrix.layout,
          matrix.tiles.data() + static_cast<uint64_t>(row) / 16 * matrix.layout.tile_bytes,
          static_cast<uint32_t>(row % 16), expected.data());
    }
    for (int64_t k = 0; k < width; ++k) {
      const uint16_t actual = panel[static_cast<size_t>(row * width + k)];
      if (row < rows && k < cols) {
        ASSERT_EQ(actual, FloatToF16(expected[static_cast<size_t>(k)])) << row << ", " << k;
      } else {  // of either sign
        ASSERT_EQ(actual & 0x7fff, 0) << row << ", " << k;
      }
    }
  }
  for (size_t i = values; i < panel.size(); ++i) ASSERT_EQ(panel[i], kUntouched);
}

TEST(CudaPanel, WeightsOfEveryTypeAreTheFilesRoundedToF16) {
  uint32_t seed = 0;
  for (const WeightType& type : test::AllWeightTypes()) {
    for (int64_t cols : {1, 31, 32, 33, 64, 96, 127, 128, 129, 200, 257, 576}) {
      ASSERT_NO_FATAL_FAILURE(ExpectUnpacked(type, 21, cols, ++seed));
    }
    ASSERT_NO_FATAL_FAILURE(ExpectUnpacked(type, 16, 1100, ++seed));
    ASSERT_NO_FATAL_FAILURE(ExpectUnpacked(type, 1, 640, ++seed));
  }
}

TEST(CudaPanel, NoOrderOfThreadsMatters) {
  uint32_t seed = 500;
  for (Order order : cuda_emulation::kAllOrders) {
    SetOrder(order);
    for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kZeroPoint, 64},
                                   WeightType{WeightKind::kQ6K, WeightOffset::kNone, 16},
                                   WeightType{WeightKind::kBF16, WeightOffset::kNone, 0}}) {
      ASSERT_NO_FATAL_FAILURE(ExpectUnpacked(type, 40, 700, ++seed));
    }
  }
  SetOrder(Order::kAscending);
}

// f16 holds eleven bits from 2^-14 to below 2^16, fewer down to 2^-24.
TEST(CudaPanel, FloatsBeyondF16BecomeInfiniteOrLoseBits) {
  const WeightType type{WeightKind::kF32, WeightOffset::kNone, 0};
  std::mt19937 random(1);
  WeightMatrix matrix = test::RandomMatrix(type, 16, 32, 16, random);
  const std::vector<float> values = {65504, 65519, 65520, -1e30f, 0x1p-24f, 0x1p-26f, kInfinity};
  for (size_t k = 0; k < values.size(); ++k) {
    matrix.rows[3].values[k] = std::bit_cast<uint32_t>(values[k]);
  }
  std::fill(matrix.tiles.begin(), matrix.tiles.end(), std::byte{0});
  for (uint32_t row = 0; row < 16; ++row) {
    PackRow(matrix.layout, row, matrix.rows[row].codes(), matrix.tiles.data());
  }
  const GpuLayout gpu = *MakeGpuLayout(matrix.layout);
  std::vector<std::byte> tiles(static_cast<size_t>(gpu.tile_bytes));
  RepackForGpu(matrix.layout, matrix.tiles.data(), 1, gpu, tiles.data());
  std::vector<uint16_t> panel(16 * 32);
  kCudaTable.unpack_f16({&matrix.layout, tiles.data(), 1, panel.data()}, nullptr);
  const std::vector<uint16_t> expected = {0x7bff, 0x7bff, 0x7c00, 0xfc00, 0x0001, 0x0000, 0x7c00};
  for (size_t k = 0; k < expected.size(); ++k) EXPECT_EQ(panel[3 * 32 + k], expected[k]) << k;
}

struct Token {
  float largest;
  int32_t exponent;
};

TEST(CudaRoundF16, ATokenIsBroughtIntoTheRangeOfF16AndNoOtherIsTouched) {
  const std::vector<Token> tokens = {
      {1, 0},          {0, 0},           {32767, 0},      {-32768, 1},   {65504, 1},
      {1e6f, 5},       {-3e38f, 113},    {kInfinity, 0},  {kNaN, 0},     {0x1p-8f, 0},
      {0x1.8p-9f, -9}, {-0x1p-20f, -20}, {0x1p-25f, -24}, {1e-30f, -24}, {1e-42f, -24}};
  std::mt19937 random(3);
  for (int64_t cols : {1, 5, 32, 33, 300, 1100}) {
    const auto count = static_cast<int64_t>(tokens.size());
    const int64_t stride = cols + 2;
    std::vector<float> x(static_cast<size_t>(count * stride), kNaN);
    for (int64_t t = 0; t < count; ++t) {
      const float largest = tokens[static_cast<size_t>(t)].largest;
      const float scale = std::isfinite(largest) ? std::fabs(largest) : 1;
      for (int64_t k = 0; k < cols; ++k) {
        x[static_cast<size_t>(t * stride + k)] =
            scale * (static_cast<float>(random() % 2001) / 1000 - 1);
      }
      x[static_cast<size_t>(
          t * stride + static_cast<int64_t>(random() % static_cast<uint64_t>(cols)))] = largest;
    }
    const int64_t padded = (cols + 31) / 32 * 32;
    std::vector<uint16_t> values(static_cast<size_t>(count * padded), kUntouched);
    std::vector<int32_t> exponents(tokens.size(), 99);
    const F16Activations out = {values.data(), exponents.data(), padded};
    kCudaTable.round_f16({x.data(), stride, cols, out, 2, count}, nullptr);
    EXPECT_EQ(exponents[1], 99);
    EXPECT_EQ(values[static_cast<size_t>(2 * padded - 1)], kUntouched);
    kCudaTable.round_f16({x.data(), stride, cols, out, 0, 2}, nullptr);
    for (int64_t t = 0; t < count; ++t) {
      const Token& token = tokens[static_cast<size_t>(t)];
      ASSERT_EQ(exponents[static_cast<size_t>(t)], token.exponent) << token.largest;
      for (int64_t k = 0; k < padded; ++k) {
        const uint16_t actual = values[static_cast<size_t>(t * padded + k)];
        if (k >= cols) {
          ASSERT_EQ(actual, 0);
          continue;
        }
        const float value = x[static_cast<size_t>(t * stride + k)];
        const float there = F16ToFloat(actual);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(there));
        } else {
          ASSERT_EQ(actual, FloatToF16(std::ldexp(value, -token.exponent))) << value;
          ASSERT_TRUE(std::isfinite(there) || !std::isfinite(token.largest)) << value;
        }
      }
    }
  }
}

TEST(CudaShiftRows, RowsAreShiftedByTheirTokensPowerOfTwo) {
  const std::vector<int32_t> exponents = {0, 3, -24, 113};
  std::mt19937 random(4);
  for (int64_t rows : {1, 37, 1024, 1500}) {
    const int64_t stride = rows + 3;
    const std::vector<float> before = test::RandomFloats(static_cast<size_t>(4 * stride), random);
    const std::vector<float> bias = test::RandomFloats(static_cast<size_t>(rows), random);
    for (const bool has_bias : {false, true}) {
      for (const bool down : {false, true}) {
        for (const bool keep : {false, true}) {
          std::vector<float> y = before;
          if (!keep) std::fill(y.begin(), y.begin() + rows, kNaN);  // of the first token
          const std::vector<float> given = y;
          kCudaTable.shift_rows({y.data(), stride, rows, has_bias ? bias.data() : nullptr,
                                 exponents.data(), down, keep, 0, 4},
                                nullptr);
          for (int64_t t = 0; t < 4; ++t) {
            const int exponent = exponents[static_cast<size_t>(t)];
            for (int64_t row = 0; row < stride; ++row) {
              const auto at = static_cast<size_t>(t * stride + row);
              float expected = given[at];
              if (row < rows) {
                if (!keep) expected = 0;
                if (has_bias) expected += bias[static_cast<size_t>(row)];
                expected = std::ldexp(expected, down ? -exponent : exponent);
              }
              ASSERT_TRUE(test::SameBits(y[at], expected))
                  << "token " << t << " row " << row << ": " << y[at] << ", not " << expected;
            }
          }
        }
      }
    }
  }
}

TEST(PanelRows, AreWholeTilesInAsFewPanelsAsThereIsRoomFor) {
  constexpr int64_t kMost = 64 << 20;
  // Matrices of 8 billion weights are one panel.
  EXPECT_EQ(PanelValues(14336, 4096), 14336 * 4096);
  EXPECT_EQ(PanelRows(14336, 4096, PanelValues(14336, 4096)), 14336);
  EXPECT_EQ(PanelRows(4096, 14336, PanelValues(14336, 4096)), 4096);
  EXPECT_EQ(PanelRows(1024, 4096, kMost), 1024);
  // Of 70 billion: 8192 x 28672 is 3.5 times the room.
  EXPECT_EQ(PanelValues(8192, 28672), 2336 * 28672);
  EXPECT_EQ(PanelRows(8192, 28672, 2336 * 28672), 2048);
  EXPECT_EQ(PanelRows(28672, 8192, 8192 * 8192), 7168);
  // Of one tile and less.
  EXPECT_EQ(PanelValues(5, 7), 16 * 32);
  EXPECT_EQ(PanelRows(5, 7, 16 * 32), 16);
  EXPECT_EQ(PanelValues(1000, int64_t{1} << 27), int64_t{16} << 27);
  for (int64_t rows : {1, 16, 17, 100, 128, 129, 1000, 5003}) {
    for (int64_t cols : {1, 33, 500}) {
      const int64_t width = (cols + 31) / 32 * 32;
      for (int64_t tiles : {1, 2, 3, 9, 20, 400}) {
        const int64_t panel = PanelRows(rows, cols, tiles * 16 * width);
        ASSERT_EQ(panel % 16, 0);
        ASSERT_GE(panel, 16);
        ASSERT_LE(panel, tiles * 16);
        const int64_t fewest = (rows + tiles * 16 - 1) / (tiles * 16);
        ASSERT_EQ((rows + panel - 1) / panel, fewest) << rows << ", " << tiles;
      }
    }
  }
}

}  // namespace
}  // namespace sluice
