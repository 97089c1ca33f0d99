// The CUDA matrix multiplications, emulated: int4 and int8 against the numeric contract to the bit,
// float weights against float64.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;
using test::ActivationBuffer;
using test::WeightMatrix;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr float kUntouched = -12345.0f;

std::vector<WeightType> GpuTypes(bool quantized) {
  std::vector<WeightType> types;
  for (const WeightType& type : test::AllWeightTypes()) {
    const auto layout = MakeTileLayout(type, 16, 256, 16);
    if (type.quantized() == quantized && MakeGpuLayout(*layout).ok()) types.push_back(type);
  }
  return types;
}

// A matrix as it lies on the GPU: every allocation has the very size, so that the address sanitizer
// sees what is read beyond.
struct GpuMatrix {
  explicit GpuMatrix(const WeightMatrix& matrix)
      : gpu(*MakeGpuLayout(matrix.layout)),
        tiles(static_cast<size_t>(static_cast<int64_t>(matrix.layout.num_tiles) * gpu.tile_bytes),
              std::byte{0xee}) {
    RepackForGpu(matrix.layout, matrix.tiles.data(), static_cast<int64_t>(matrix.layout.num_tiles),
                 gpu, tiles.data());
  }
  GpuLayout gpu;
  std::vector<std::byte> tiles;
};

struct Call {
  int64_t rows, cols, tokens;
  int64_t block_begin = 0, block_end = 1 << 20;
  bool bias = false, add_to_y = false;
};

std::string Describe(const WeightType& type, const Call& call) {
  return WeightTypeName(type) + " " + std::to_string(call.rows) + " x " +
         std::to_string(call.cols) + ", " + std::to_string(call.tokens) + " tokens, blocks " +
         std::to_string(call.block_begin) + " to " + std::to_string(call.block_end);
}

int64_t Blocks(int64_t cols) { return (cols + 127) / 128; }

// Rows of K types are whole super-blocks.
int64_t WidthFor(const WeightType& type, int64_t cols) {
  return type.has_super_blocks() ? (cols + 255) / 256 * 256 : cols;
}

void ExpectContract(const WeightType& type, Call call, uint32_t seed) {
  call.cols = WidthFor(type, call.cols);
  call.block_end = std::min(call.block_end, Blocks(call.cols));
  SCOPED_TRACE(Describe(type, call));
  std::mt19937 random(seed);
  const WeightMatrix matrix = test::RandomMatrix(type, static_cast<uint64_t>(call.rows),
                                                 static_cast<uint64_t>(call.cols), 16, random);
  const GpuMatrix gpu(matrix);
  const std::vector<float> x =
      test::RandomFloats(static_cast<size_t>(call.tokens * call.cols), random);
  ActivationBuffer quantized(call.tokens, call.cols, ActivationGroup(type));
  for (int64_t t = 0; t < call.tokens; ++t) {
    test::ContractQuantize(x.data() + t * call.cols, call.cols, t, &quantized);
  }
  const QuantizedActivations xq = quantized.view();
  const std::vector<float> bias = test::RandomFloats(static_cast<size_t>(call.rows), random);
  const int64_t y_stride = call.rows + 3;
  std::vector<float> y(static_cast<size_t>(call.tokens * y_stride), kUntouched);
  kCudaTable.matmul(
      {&matrix.layout, gpu.tiles.data(), static_cast<int64_t>(matrix.layout.num_tiles), call.rows,
       nullptr, 0, &xq, call.tokens, call.bias ? bias.data() : nullptr, call.add_to_y, y.data(),
       y_stride, call.block_begin, call.block_end},
      nullptr);
  for (int64_t t = 0; t < call.tokens; ++t) {
    for (int64_t row = 0; row < y_stride; ++row) {
      const float actual = y[static_cast<size_t>(t * y_stride + row)];
      float expected = kUntouched;
      if (row < call.rows) {
        expected =
            test::ContractQuantizedDot(matrix, row, quantized, t, call.block_begin, call.block_end);
        if (call.bias) expected += bias[static_cast<size_t>(row)];
        if (call.add_to_y) expected = kUntouched + expected;
      }
      ASSERT_TRUE(test::SameBits(actual, expected))
          << "row " << row << " token " << t << ": " << actual << ", not " << expected;
    }
  }
}

TEST(GpuLayout, Int4BytesLieWhereTheHeaderSays) {
  // One row tile of 64 channels; row r, channel k holds (3 r + k) % 16.
  const WeightType type{WeightKind::kInt4, WeightOffset::kZeroPoint, 32};
  std::mt19937 random(1);
  WeightMatrix matrix = test::RandomMatrix(type, 16, 64, 16, random);
  std::fill(matrix.tiles.begin(), matrix.tiles.end(), std::byte{0});
  for (uint32_t row = 0; row < 16; ++row) {
    for (uint32_t k = 0; k < 64; ++k) matrix.rows[row].values[k] = (3 * row + k) % 16;
    matrix.rows[row].scales = {static_cast<uint16_t>(0x3c00 + row), 0x4000};
    matrix.rows[row].offsets = {static_cast<uint16_t>(row), 7};
    PackRow(matrix.layout, row, matrix.rows[row].codes(), matrix.tiles.data());
  }
  const GpuMatrix gpu(matrix);
  ASSERT_EQ(gpu.gpu.tile_bytes, 512 + 2 * 32 + 2 * 16);
  // Lane 4 g + t with g = 3, t = 2: channels 16 to 23 and 48 to 55 of rows 3 and 11.
  const std::byte* lane = gpu.tiles.data() + (4 * 3 + 2) * 16;
  const auto byte = [](uint32_t row, uint32_t k) {
    return static_cast<std::byte>((3 * row + k) % 16 | ((3 * row + k + 32) % 16) << 4);
  };
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(lane[i], byte(3, 16 + i));
    EXPECT_EQ(lane[4 + i], byte(11, 16 + i));
    EXPECT_EQ(lane[8 + i], byte(3, 20 + i));
    EXPECT_EQ(lane[12 + i], byte(11, 20 + i));
  }
  EXPECT_EQ(gpu.tiles[512 + 2 * 5], std::byte{0x05});  // scale 0x3c05 of row 5, group 0
  EXPECT_EQ(gpu.tiles[512 + 32 + 2 * 5 + 1], std::byte{0x40});
  EXPECT_EQ(gpu.tiles[512 + 64 + 9], std::byte{9});  // zero point of row 9, group 0
  EXPECT_EQ(gpu.tiles[512 + 64 + 16 + 9], std::byte{7});
}

// The codes of one row tile, with row r, channel k holding value(r, k).
template <typename Value>
WeightMatrix Tile(const WeightType& type, uint32_t cols, const Value& value) {
  std::mt19937 random(1);
  WeightMatrix matrix = test::RandomMatrix(type, 16, cols, 16, random);
  std::fill(matrix.tiles.begin(), matrix.tiles.end(), std::byte{0});
  for (uint32_t row = 0; row < 16; ++row) {
    for (uint32_t k = 0; k < cols; ++k) matrix.rows[row].values[k] = value(row, k);
    PackRow(matrix.layout, row, matrix.rows[row].codes(), matrix.tiles.data());
  }
  return matrix;
}

TEST(GpuLayout, TheFifthBitLiesBehindTheOtherFour) {
  const auto value = [](uint32_t row, uint32_t k) { return (5 * row + 3 * k) % 32; };
  const GpuMatrix gpu(Tile({WeightKind::kInt5, WeightOffset::kMinimum, 32}, 64, value));
  ASSERT_EQ(gpu.gpu.tile_bytes, 512 + 128 + 2 * 32 + 2 * 32);
  // Lane 4 g + t with g = 3, t = 2: channels 16 to 23 and 48 to 55 of rows 3 and 11.
  const std::byte* lane = gpu.tiles.data() + (4 * 3 + 2) * 16;
  const std::byte* high = gpu.tiles.data() + 512 + (4 * 3 + 2) * 4;
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(lane[4 + i],
              static_cast<std::byte>(value(11, 16 + i) % 16 | value(11, 48 + i) % 16 << 4));
    uint32_t bits = 0;
    for (uint32_t half = 0; half < 2; ++half) {
      for (uint32_t word = 0; word < 4; ++word) {
        const uint32_t row = 3 + 8 * (word % 2);
        bits |= value(row, 16 + 4 * (word / 2) + i + 32 * half) / 16 << (4 * half + word);
      }
    }
    EXPECT_EQ(high[i], static_cast<std::byte>(bits)) << i;
  }
}

TEST(GpuLayout, Q6KHasTwoMoreBitsAndTheSuperBlocksScaleInEachChunk) {
  const auto value = [](uint32_t row, uint32_t k) { return (7 * row + 5 * k) % 64; };
  const WeightMatrix matrix = Tile({WeightKind::kQ6K, WeightOffset::kNone, 16}, 512, value);
  const GpuMatrix gpu(matrix);
  const int64_t chunk = 2 * (512 + 256) + 32 + 8 * 16;
  ASSERT_EQ(gpu.gpu.chunk_bytes, chunk);
  ASSERT_EQ(gpu.gpu.tile_bytes, 4 * chunk);
  // The second unit of chunk 3, that is of super-block 1: channels 448 on.
  const std::byte* unit = gpu.tiles.data() + 3 * chunk + 768;
  for (uint32_t half = 0; half < 2; ++half) {
    for (uint32_t i = 0; i < 4; ++i) {
      uint32_t bits = 0;
      for (uint32_t word = 0; word < 4; ++word) {
        bits |= value(3 + 8 * (word % 2), 448 + 16 + 4 * (word / 2) + i + 32 * half) / 16
                << (2 * word);
      }
      EXPECT_EQ(unit[512 + 14 * 8 + half * 4 + i], static_cast<std::byte>(bits));
    }
  }
  const std::byte* scales = unit + 768;
  const test::WeightRow& row = matrix.rows[9];
  EXPECT_EQ(std::to_integer<uint32_t>(scales[18]) | std::to_integer<uint32_t>(scales[19]) << 8,
            row.super_scales[1]);
  EXPECT_EQ(std::to_integer<uint32_t>(scales[32 + 5 * 16 + 9]), row.scales[3 * 8 + 5] & 255u);
}

TEST(GpuLayout, KTypesTakeWhatTheyTakeInTheirFilesAndAQuarterOfABitMore) {
  const auto bits = [](WeightKind kind, WeightOffset offset, uint16_t group) {
    const GpuLayout gpu = *MakeGpuLayout(*MakeTileLayout({kind, offset, group}, 16, 4096, 16));
    return static_cast<double>(gpu.tile_bytes) * 8 / (16 * 4096);
  };
  EXPECT_EQ(bits(WeightKind::kQ4K, WeightOffset::kMinimum, 32), 4.75);
  EXPECT_EQ(bits(WeightKind::kQ5K, WeightOffset::kMinimum, 32), 5.75);
  EXPECT_EQ(bits(WeightKind::kQ6K, WeightOffset::kNone, 16), 6.625);
  EXPECT_EQ(bits(WeightKind::kInt5, WeightOffset::kNone, 32), 5.5);
  EXPECT_EQ(bits(WeightKind::kInt5, WeightOffset::kMinimum, 32), 6);
}

TEST(GpuLayout, RefusesTilesOfOneRow) {
  const WeightType half{WeightKind::kF16, WeightOffset::kNone, 0};
  EXPECT_EQ(MakeGpuLayout(*MakeTileLayout(half, 16, 64, 1)).status().code(),
            ErrorCode::kUnsupported);
}

TEST(GpuLayout, EveryTypeIsThere) {
  EXPECT_EQ(GpuTypes(true).size() + GpuTypes(false).size(), test::AllWeightTypes().size());
}

TEST(CudaGatherRows, RowsOfRepackedTilesAreTheFilesRowsToTheBit) {
  std::mt19937 random(2);
  for (const bool is_quantized : {true, false}) {
    for (const WeightType& type : GpuTypes(is_quantized)) {
      for (int64_t some : {1, 31, 33, 64, 96, 127, 128, 129, 200, 257, 576}) {
        const auto cols = static_cast<uint64_t>(WidthFor(type, some));
        const uint64_t rows = 37;
        const WeightMatrix matrix = test::RandomMatrix(type, rows, cols, 16, random);
        const GpuMatrix gpu(matrix);
        std::vector<const std::byte*> tiles;
        std::vector<uint32_t> in_tile;
        const std::vector<uint32_t> ids = {36, 0, 5, 15, 16, 31, 32, 5};
        for (uint32_t id : ids) {
          tiles.push_back(gpu.tiles.data() + id / 16 * gpu.gpu.tile_bytes);
          in_tile.push_back(id % 16);
        }
        const auto stride = static_cast<int64_t>(cols) + 1;
        std::vector<float> out(ids.size() * static_cast<size_t>(stride), kUntouched);
        kCudaTable.gather_rows({&matrix.layout, tiles.data(), in_tile.data(),
                                static_cast<int64_t>(ids.size()), out.data(), stride},
                               nullptr);
        std::vector<float> expected(cols);
        for (size_t i = 0; i < ids.size(); ++i) {
          DequantizeRow(matrix.layout, matrix.tiles.data() + ids[i] / 16 * matrix.layout.tile_bytes,
                        ids[i] % 16, expected.data());
          const float* row = out.data() + i * static_cast<size_t>(stride);
          for (size_t k = 0; k < cols; ++k) {
            ASSERT_TRUE(test::SameBits(row[k], expected[k]))
                << WeightTypeName(type) << " " << cols << " row " << ids[i] << " column " << k;
          }
          ASSERT_EQ(row[cols], kUntouched);
        }
      }
    }
  }
}

TEST(CudaMatmul, QuantizedWeightsGiveTheContractsBitsForFewAndManyTokens) {
  uint32_t seed = 0;
  for (const WeightType& type : GpuTypes(true)) {
    for (int64_t tokens : {1, 8, 13, 16, 17, 70}) {
      ++seed;
      const int64_t rows = tokens <= 16 ? 21 : 39;
      ASSERT_NO_FATAL_FAILURE(ExpectContract(
          type, {rows, 33 + 37 * (seed % 16), tokens, 0, 99, seed % 2 == 0, seed % 3 == 0}, seed));
    }
  }
}

TEST(CudaMatmul, QuantizedWeightsOverAwkwardWidths) {
  uint32_t seed = 1000;
  for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kInt4, WeightOffset::kMinimum, 64},
                                 WeightType{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                                 WeightType{WeightKind::kInt8, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kInt8, WeightOffset::kZeroPoint, 16},
                                 WeightType{WeightKind::kInt5, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kInt8, WeightOffset::kNone, 0}}) {
    for (int64_t cols : {1, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 160, 257, 576, 640, 1537}) {
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {16, cols, 1}, ++seed));
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {16, cols, 2}, ++seed));
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {16, cols, 17}, ++seed));
    }
  }
}

TEST(CudaMatmul, RangesOfBlocksAndEveryOrderOfThreads) {
  uint32_t seed = 2000;
  const WeightType type{WeightKind::kInt4, WeightOffset::kMinimum, 32};
  for (Order order : cuda_emulation::kAllOrders) {
    SetOrder(order);
    for (int64_t tokens : {1, 5, 13, 40}) {
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {50, 1300, tokens, 2, 9}, ++seed));
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {50, 1300, tokens, 10, 11}, ++seed));
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {50, 1300, tokens, 3, 3}, ++seed));
    }
  }
  SetOrder(Order::kAscending);
}

TEST(CudaMatmul, KTypesOverSuperBlocksAndRanges) {
  uint32_t seed = 2500;
  for (const WeightType& type : {WeightType{WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ5K, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ6K, WeightOffset::kNone, 16}}) {
    for (Order order : {Order::kShuffled, Order::kWarpByWarp}) {
      SetOrder(order);
      for (int64_t tokens : {1, 7, 9, 66}) {
        ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {35, 768, tokens, 1, 5}, ++seed));
      }
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {16, 2048, 3}, ++seed));
    }
  }
  SetOrder(Order::kAscending);
}

TEST(CudaMatmul, ManyRowsAndTokensThatAreNoMultipleOfABlock) {
  const WeightType type{WeightKind::kInt4, WeightOffset::kZeroPoint, 128};
  ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {150, 300, 131}, 3000));
  ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {129, 128, 64, 0, 99, true, true}, 3001));
}

// So many tiles that fewer copies are on their way to each, over so many channels that they wrap.
TEST(CudaMatmul, ManyTilesOfFewTokens) {
  const WeightType type{WeightKind::kInt4, WeightOffset::kNone, 128};
  ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {8187, 2100, 2}, 3100));
}

TEST(CudaMatmul, OneTokenOverManyRounds) {
  uint32_t seed = 3200;
  for (const WeightType& type : GpuTypes(true)) {
    for (int64_t cols : {4100, 2048 + 32}) {
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {16, cols, 1, 0, 99, true, true}, ++seed));
      ASSERT_NO_FATAL_FAILURE(ExpectContract(type, {5, cols, 1, 3, 14}, ++seed));
    }
  }
}

TEST(CudaMatmul, ActivationsThatAreNotFiniteMakeTheirTokensNaNAndNoOther) {
  std::mt19937 random(5);
  const WeightType type{WeightKind::kInt4, WeightOffset::kNone, 32};
  const WeightMatrix matrix = test::RandomMatrix(type, 16, 256, 16, random);
  const GpuMatrix gpu(matrix);
  for (int64_t tokens : {2, 3, 20}) {
    std::vector<float> x = test::RandomFloats(static_cast<size_t>(tokens * 256), random);
    x[256 + 200] = std::numeric_limits<float>::infinity();
    ActivationBuffer quantized(tokens, 256, 32);
    const QuantizedActivations xq = quantized.view();
    kCudaTable.quantize({x.data(), 256, 256, xq, 0, tokens}, nullptr);
    std::vector<float> y(static_cast<size_t>(tokens * 16));
    kCudaTable.matmul({&matrix.layout, gpu.tiles.data(), 1, 16, nullptr, 0, &xq, tokens, nullptr,
                       false, y.data(), 16, 0, 2},
                      nullptr);
    for (int64_t i = 0; i < tokens * 16; ++i) {
      EXPECT_EQ(std::isnan(y[static_cast<size_t>(i)]), i / 16 == 1) << i;
    }
  }
}

// Two tf32 numbers hold x to 2^-22 of it, and so a weight in f32; the product of the low parts is
// left out, 2^-22 too. The tensor cores add up to 8 products and the sum so far without saying how
// they round: taken as 2 epsilon of the magnitudes for each such step, and one for each addition.
double FloatBound(int64_t cols, double magnitude) {
  const double steps = static_cast<double>(cols) / 8 * 3 + 8;
  return magnitude * (3 * 0x1p-22 + steps * 2 * kEpsilon);
}

TEST(CudaMatmul, FloatWeightsWithinTheirBoundAndTheSameBitsInEveryBatch) {
  std::mt19937 random(6);
  for (const WeightType& type : GpuTypes(false)) {
    for (int64_t cols : {1, 7, 16, 17, 100, 128, 129, 333}) {
      const int64_t rows = 21;
      const int64_t tokens = 67;
      const WeightMatrix matrix = test::RandomMatrix(type, static_cast<uint64_t>(rows),
                                                     static_cast<uint64_t>(cols), 16, random);
      const GpuMatrix gpu(matrix);
      std::vector<float> x = test::RandomFloats(static_cast<size_t>(tokens * cols), random);
      x[0] = 1e6f;  // beyond the range of f16
      const std::vector<float> bias = test::RandomFloats(static_cast<size_t>(rows), random);
      const auto multiply = [&](int64_t first, int64_t count) {
        std::vector<float> y(static_cast<size_t>(count * rows), 1.0f);
        kCudaTable.matmul({&matrix.layout, gpu.tiles.data(), 2, rows, x.data() + first * cols, cols,
                           nullptr, count, bias.data(), true, y.data(), rows, 0, Blocks(cols)},
                          nullptr);
        return y;
      };
      const std::vector<float> y = multiply(0, tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t row = 0; row < rows; ++row) {
          double expected = 1.0 + bias[static_cast<size_t>(row)];
          double magnitude = std::fabs(expected);
          for (int64_t k = 0; k < cols; ++k) {
            const double product =
                test::WeightAt(matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k)).value *
                x[static_cast<size_t>(t * cols + k)];
            expected += product;
            magnitude += std::fabs(product);
          }
          const float actual = y[static_cast<size_t>(t * rows + row)];
          ASSERT_TRUE(std::fabs(actual - expected) <= FloatBound(cols, magnitude))
              << WeightTypeName(type) << " " << cols << ": " << actual << ", not " << expected;
        }
      }
      for (int64_t count : {1, 9, 17}) {
        const std::vector<float> few = multiply(30, count);
        for (size_t i = 0; i < few.size(); ++i) {
          ASSERT_TRUE(test::SameBits(few[i], y[static_cast<size_t>(30 * rows) + i]));
        }
      }
    }
  }
}

TEST(CudaMatmul, AnInfiniteActivationIsInfiniteInFloatWeights) {
  std::mt19937 random(7);
  const WeightMatrix matrix =
      test::RandomMatrix({WeightKind::kBF16, WeightOffset::kNone, 0}, 16, 16, 16, random);
  const GpuMatrix gpu(matrix);
  std::vector<float> x(16, 0.0f);
  x[3] = std::numeric_limits<float>::infinity();
  std::vector<float> y(16);
  kCudaTable.matmul({&matrix.layout, gpu.tiles.data(), 1, 16, x.data(), 16, nullptr, 1, nullptr,
                     false, y.data(), 16, 0, 1},
                    nullptr);
  for (uint64_t row = 0; row < 16; ++row) {
    const double weight = test::WeightAt(matrix, row, 3).value;
    if (weight != 0) {
      EXPECT_EQ(y[row], static_cast<float>(weight) * x[3]);
    }
  }
}

}  // namespace
}  // namespace sluice
