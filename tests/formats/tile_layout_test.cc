// The bytes of tiles against the formulas of formats/FORMAT.md, section "Tiles", computed here once
// more.
#include "formats/tile_layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "formats/half.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

constexpr int64_t kCols[] = {1,  2,   15,  31,  32,  33,  63,  64, 65,
                             97, 127, 128, 129, 160, 255, 257, 400};

uint64_t Ceil(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// Byte positions inside a tile, by the specification's words.
struct Specification {
  Specification(const WeightType& type, uint64_t cols, uint64_t rows_of_tile)
      : type(type), cols(cols), r(rows_of_tile), padded(Ceil(cols, 32) * 32) {}

  // Bits beside the low nibble, channels of a plane of them, and channels that share a header.
  uint64_t HighBits() const {
    switch (type.kind) {
      case WeightKind::kInt5:
      case WeightKind::kQ5K:
        return 1;
      case WeightKind::kQ6K:
        return 2;
      default:
        return 0;
    }
  }
  uint64_t Unit() const { return HighBits() == 0 ? 8 : 32 / HighBits(); }
  uint64_t BlockChannels() const { return type.has_super_blocks() ? 256 : 128; }
  uint64_t SuperHeader() const { return (type.kind == WeightKind::kQ6K ? 20 : 16) * r; }
  uint64_t BitsPerValue() const { return type.kind == WeightKind::kInt8 ? 8 : 4 + HighBits(); }

  uint64_t OffsetSize() const {
    return type.offset == WeightOffset::kNone ? 0 : type.offset == WeightOffset::kMinimum ? 2 : 1;
  }
  uint64_t Header(uint64_t groups) const {
    return Ceil(groups * r * (2 + OffsetSize()), 4 * r) * 4 * r;
  }
  uint64_t Channels(uint64_t block) const { return std::min<uint64_t>(128, padded - block * 128); }
  uint64_t Groups(uint64_t block) const {
    return type.group_size == 0 ? 0 : Ceil(Channels(block), type.group_size);
  }
  uint64_t BlockSize(uint64_t block) const {
    if (type.has_super_blocks()) return SuperHeader() + 32 * BitsPerValue() * r;
    const uint64_t integers = Channels(block) * r * BitsPerValue() / 8;
    return (type.group_size == 0 ? 0 : Header(Groups(block))) + integers;
  }
  uint64_t BlockStart(uint64_t block) const {
    uint64_t at = type.group_size == 0 ? Header(1) : 0;
    for (uint64_t i = 0; i < block; ++i) at += BlockSize(i);
    return at;
  }
  uint64_t TileSize() const {
    if (type.kind == WeightKind::kF32) return cols * r * 4;
    if (!type.quantized()) return Ceil(cols, 2) * 2 * r * 2;
    return BlockStart(Ceil(padded, BlockChannels()));
  }
  // The byte with the low four bits (or all bits) of channel k, and the one with the others.
  uint64_t Integers(uint64_t k) const {
    const uint64_t block = k / BlockChannels();
    if (type.has_super_blocks()) return BlockStart(block) + SuperHeader();
    return BlockStart(block) + (type.group_size == 0 ? 0 : Header(Groups(block)));
  }
  uint64_t Plane(uint64_t k) const {
    return Integers(k) + k % BlockChannels() / Unit() * (4 * r + Unit() / 2 * r);
  }
  uint64_t HighByte(uint64_t k, uint64_t row) const { return Plane(k) + 4 * row + k % 4; }
  uint64_t HighShift(uint64_t k) const { return k % Unit() / 4 * HighBits(); }
  uint64_t Value(uint64_t k, uint64_t row) const {
    if (type.kind == WeightKind::kF32) return (k * r + row) * 4;
    if (!type.quantized()) return (k / 2 * r + row) * 4 + k % 2 * 2;
    if (HighBits() != 0) return Plane(k) + 4 * r + k % Unit() / 8 * 4 * r + 4 * row + k % 4;
    const uint64_t channels = type.kind == WeightKind::kInt8 ? 4 : 8;
    return Integers(k) + k % BlockChannels() / channels * 4 * r + 4 * row + k % 4;
  }
  uint64_t Scale(uint64_t group, uint64_t row) const {
    if (type.group_size == 0) return row * 2;
    const uint64_t block = group * type.group_size / 128;
    return BlockStart(block) + (group - block * 128 / type.group_size) * r * 2 + row * 2;
  }
  uint64_t Offset(uint64_t group, uint64_t row) const {
    if (type.group_size == 0) return r * 2 + row * OffsetSize();
    const uint64_t block = group * type.group_size / 128;
    return BlockStart(block) + Groups(block) * r * 2 +
           ((group - block * 128 / type.group_size) * r + row) * OffsetSize();
  }

  WeightType type;
  uint64_t cols, r, padded;
};

uint64_t ReadBytes(const std::byte* p, uint64_t count) {
  uint64_t value = 0;
  std::memcpy(&value, p, count);
  return value;
}

// Takes the bits of one number out of a byte.
uint32_t TakeBits(std::byte* at, uint64_t shift, uint64_t count) {
  const auto mask = static_cast<uint32_t>(((1u << count) - 1) << shift);
  const uint32_t value = (static_cast<uint32_t>(*at) & mask) >> shift;
  *at &= static_cast<std::byte>(~mask);
  return value;
}

// Compares the integers of a row and takes them out of the tile.
void TakeIntegers(const Specification& spec, const test::WeightRow& codes, uint64_t row,
                  std::byte* tile) {
  for (uint64_t k = 0; k < spec.cols; ++k) {
    const uint64_t shift = spec.BitsPerValue() < 8 && k % 8 >= 4 ? 4 : 0;
    const uint64_t low_bits = spec.BitsPerValue() - spec.HighBits();
    uint32_t value = TakeBits(tile + spec.Value(k, row), shift, low_bits);
    if (spec.HighBits() != 0) {
      value |= TakeBits(tile + spec.HighByte(k, row), spec.HighShift(k), spec.HighBits()) << 4;
    }
    ASSERT_EQ(value, codes.values[k]) << spec.cols << " channel " << k;
  }
}

// The same of the header of each super-block: d, dmin, nibbles of scale and minimum, two more bits
// of both; or d and bytes.
void TakeSuperBlockHeaders(const Specification& spec, const test::WeightRow& codes, uint64_t row,
                           std::byte* tile) {
  const bool six = spec.type.kind == WeightKind::kQ6K;
  const uint64_t groups = six ? 16 : 8;
  for (uint64_t block = 0; block < spec.cols / 256; ++block) {
    std::byte* at = tile + spec.BlockStart(block);
    ASSERT_EQ(ReadBytes(at + 2 * row, 2), codes.super_scales[block]);
    std::memset(at + 2 * row, 0, 2);
    if (!six) {
      ASSERT_EQ(ReadBytes(at + 2 * spec.r + 2 * row, 2), codes.super_offsets[block]);
      std::memset(at + 2 * spec.r + 2 * row, 0, 2);
    }
    for (uint64_t g = 0; g < groups; ++g) {
      const uint16_t scale = codes.scales[block * groups + g];
      if (six) {
        ASSERT_EQ(TakeBits(at + 2 * spec.r + g * spec.r + row, 0, 8), scale);
        continue;
      }
      const uint16_t minimum = codes.offsets[block * groups + g];
      std::byte* low = at + 4 * spec.r + g * spec.r + row;
      std::byte* high = at + 12 * spec.r + g / 2 * spec.r + row;
      const uint64_t shift = g % 2 * 4;
      ASSERT_EQ(TakeBits(low, 0, 4), scale % 16u);
      ASSERT_EQ(TakeBits(low, 4, 4), minimum % 16u);
      ASSERT_EQ(TakeBits(high, shift, 2), scale / 16u);
      ASSERT_EQ(TakeBits(high, shift + 2, 2), minimum / 16u);
    }
  }
}

class TileLayoutTest : public testing::TestWithParam<WeightType> {};

TEST_P(TileLayoutTest, EveryNumberLiesWhereTheSpecificationSaysAndPaddingIsZero) {
  std::mt19937 random(1);
  const WeightType type = GetParam();
  for (int64_t wanted : kCols) {
    const auto cols = static_cast<uint64_t>(test::ColsFor(GetParam(), wanted));
    for (uint32_t tile_rows : {1u, 16u}) {
      const uint64_t rows = tile_rows == 1 ? 3 : 21;
      const test::WeightMatrix matrix = test::RandomMatrix(type, rows, cols, tile_rows, random);
      const Specification spec(type, cols, tile_rows);
      ASSERT_EQ(matrix.layout.tile_bytes, spec.TileSize()) << cols;
      ASSERT_EQ(matrix.layout.size_bytes, Ceil(rows, tile_rows) * spec.TileSize());
      // Every byte that belongs to a number is cleared after it was compared; the rest is padding.
      std::vector<std::byte> tiles = matrix.tiles;
      for (uint64_t row = 0; row < rows; ++row) {
        std::byte* tile = tiles.data() + row / tile_rows * spec.TileSize();
        const uint64_t in_tile = row % tile_rows;
        const test::WeightRow& codes = matrix.rows[row];
        if (type.quantized()) {
          ASSERT_NO_FATAL_FAILURE(TakeIntegers(spec, codes, in_tile, tile));
        }
        for (uint64_t k = 0; k < cols && !type.quantized(); ++k) {
          std::byte* at = tile + spec.Value(k, in_tile);
          const uint64_t size = type.kind == WeightKind::kF32 ? 4 : 2;
          ASSERT_EQ(ReadBytes(at, size), codes.values[k]) << cols << " channel " << k;
          std::memset(at, 0, size);
        }
        if (type.has_super_blocks()) {
          ASSERT_NO_FATAL_FAILURE(TakeSuperBlockHeaders(spec, codes, in_tile, tile));
          continue;
        }
        for (uint64_t group = 0; group < codes.scales.size(); ++group) {
          ASSERT_EQ(ReadBytes(tile + spec.Scale(group, in_tile), 2), codes.scales[group]);
          std::memset(tile + spec.Scale(group, in_tile), 0, 2);
          if (spec.OffsetSize() == 0) continue;
          std::byte* offset = tile + spec.Offset(group, in_tile);
          ASSERT_EQ(ReadBytes(offset, spec.OffsetSize()), codes.offsets[group]);
          std::memset(offset, 0, spec.OffsetSize());
        }
      }
      for (size_t i = 0; i < tiles.size(); ++i) {
        ASSERT_EQ(tiles[i], std::byte{0}) << cols << " columns, byte " << i;
      }
    }
  }
}

TEST_P(TileLayoutTest, UnpackRowGivesBackWhatPackRowTook) {
  std::mt19937 random(2);
  for (int64_t wanted : kCols) {
    const auto cols = static_cast<uint64_t>(test::ColsFor(GetParam(), wanted));
    for (uint32_t tile_rows : {1u, 16u}) {
      const test::WeightMatrix matrix = test::RandomMatrix(GetParam(), 18, cols, tile_rows, random);
      for (uint64_t row = 0; row < 18; ++row) {
        test::WeightRow codes = matrix.rows[row];
        std::fill(codes.values.begin(), codes.values.end(), 0xdeadu);
        for (std::vector<uint16_t>* v :
             {&codes.scales, &codes.super_scales, &codes.super_offsets}) {
          std::fill(v->begin(), v->end(), uint16_t{0xdead});
        }
        if (GetParam().offset != WeightOffset::kNone) {
          std::fill(codes.offsets.begin(), codes.offsets.end(), uint16_t{0xdead});
        }
        UnpackRow(matrix.layout, matrix.tiles.data() + row / tile_rows * matrix.layout.tile_bytes,
                  static_cast<uint32_t>(row % tile_rows), codes.codes());
        ASSERT_EQ(codes.values, matrix.rows[row].values);
        ASSERT_EQ(codes.scales, matrix.rows[row].scales);
        ASSERT_EQ(codes.offsets, matrix.rows[row].offsets);
        ASSERT_EQ(codes.super_scales, matrix.rows[row].super_scales);
        ASSERT_EQ(codes.super_offsets, matrix.rows[row].super_offsets);
      }
    }
  }
}

TEST_P(TileLayoutTest, DequantizeRowHasOneRoundingOrTwo) {
  std::mt19937 random(3);
  for (int64_t wanted : kCols) {
    const auto cols = static_cast<uint64_t>(test::ColsFor(GetParam(), wanted));
    for (uint32_t tile_rows : {1u, 16u}) {
      const test::WeightMatrix matrix = test::RandomMatrix(GetParam(), 17, cols, tile_rows, random);
      for (uint64_t row = 0; row < 17; ++row) {
        std::vector<float> out(cols);
        DequantizeRow(matrix.layout,
                      matrix.tiles.data() + row / tile_rows * matrix.layout.tile_bytes,
                      static_cast<uint32_t>(row % tile_rows), out.data());
        for (uint64_t k = 0; k < cols; ++k) {
          // The exact product of an f16 and a small integer fits a double; one conversion rounds
          // it.
          const test::ExactWeight w = test::WeightAt(matrix, row, k);
          if (GetParam().offset != WeightOffset::kMinimum) {
            ASSERT_EQ(out[k], static_cast<float>(w.value));
          } else {
            const double bound = w.magnitude * std::numeric_limits<float>::epsilon();
            ASSERT_TRUE(std::fabs(out[k] - w.value) <= bound);
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, TileLayoutTest, testing::ValuesIn(test::AllWeightTypes()),
                         [](const testing::TestParamInfo<WeightType>& info) {
                           std::string name = WeightTypeName(info.param);
                           for (char& c : name) c = c == ':' ? '_' : c;
                           return name;
                         });

TEST(MakeTileLayout, SizesByHand) {
  // 8192 x 28672 in int4:g128:zero: 16 scales and 16 zero points, padded from 48 to 64 bytes, then
  // 128 channels of 16 rows at half a byte: 1088 bytes for each of 64 blocks.
  const WeightType zero{WeightKind::kInt4, WeightOffset::kZeroPoint, 128};
  EXPECT_EQ(MakeTileLayout(zero, 28672, 8192, 16)->tile_bytes, 64u * 1088);
  // Groups of 32 with minimum: 4 x 16 x (2 + 2) bytes and 1024.
  const WeightType minimum{WeightKind::kInt4, WeightOffset::kMinimum, 32};
  EXPECT_EQ(MakeTileLayout(minimum, 1536, 576, 16)->tile_bytes, 4u * 1280 + 640);
  // One row of 33 channels of int8 without groups: 4 bytes of header, 64 integers.
  const WeightType whole{WeightKind::kInt8, WeightOffset::kNone, 0};
  EXPECT_EQ(MakeTileLayout(whole, 1, 33, 1)->tile_bytes, 4u + 64);
  EXPECT_EQ(MakeTileLayout({WeightKind::kF16, WeightOffset::kNone, 0}, 1, 3, 16)->tile_bytes, 128u);
  // GGUF's sizes: Q5_0 and Q5_1 have 22 and 24 bytes for 32 values, here 176 and 192 for 256.
  const WeightType q5_0{WeightKind::kInt5, WeightOffset::kNone, 32};
  EXPECT_EQ(MakeTileLayout(q5_0, 1536, 576, 16)->size_bytes, uint64_t{1536} * 18 * 22);
  const WeightType q5_1{WeightKind::kInt5, WeightOffset::kMinimum, 32};
  EXPECT_EQ(MakeTileLayout(q5_1, 1536, 576, 16)->size_bytes, uint64_t{1536} * 18 * 24);
  // 144, 176 and 210 bytes for 256 values; the last becomes 212.
  const WeightType q4_k{WeightKind::kQ4K, WeightOffset::kMinimum, 32};
  const WeightType q5_k{WeightKind::kQ5K, WeightOffset::kMinimum, 32};
  const WeightType q6_k{WeightKind::kQ6K, WeightOffset::kNone, 16};
  for (uint32_t tile_rows : {1u, 16u}) {
    EXPECT_EQ(MakeTileLayout(q4_k, 32, 8192, tile_rows)->size_bytes, 32u * 32 * 144);
    EXPECT_EQ(MakeTileLayout(q5_k, 32, 8192, tile_rows)->size_bytes, 32u * 32 * 176);
    EXPECT_EQ(MakeTileLayout(q6_k, 32, 8192, tile_rows)->size_bytes, 32u * 32 * 212);
  }
}

TEST(MakeTileLayout, RefusesARowOfAKTypeThatIsNotWholeSuperBlocks) {
  const WeightType q4_k{WeightKind::kQ4K, WeightOffset::kMinimum, 32};
  for (uint64_t cols : {1, 32, 128, 255, 257, 384, 576}) {
    Result<TileLayout> layout = MakeTileLayout(q4_k, 16, cols, 16);
    ASSERT_EQ(layout.status().code(), ErrorCode::kUnsupported) << cols;
    EXPECT_NE(layout.status().message().find("q4_k"), std::string::npos);
  }
}

TEST(MakeTileLayout, RefusesSizesThatAreAbsurdOrOverflow) {
  const uint64_t huge = std::numeric_limits<uint64_t>::max();
  for (const WeightType& type : test::AllWeightTypes()) {
    for (uint32_t tile_rows : {1u, 16u}) {
      EXPECT_EQ(MakeTileLayout(type, 0, 1, tile_rows).status().code(), ErrorCode::kCorrupt);
      EXPECT_EQ(MakeTileLayout(type, 1, 0, tile_rows).status().code(), ErrorCode::kCorrupt);
      for (uint64_t cols : {huge, huge - 30, huge / 2, uint64_t{1} << 32, uint64_t{1} << 25}) {
        EXPECT_FALSE(MakeTileLayout(type, 1, cols, tile_rows).ok()) << cols;
        EXPECT_FALSE(MakeTileLayout(type, huge, cols, tile_rows).ok()) << cols;
      }
      EXPECT_EQ(MakeTileLayout(type, huge, 4096, tile_rows).status().code(), ErrorCode::kCorrupt);
      EXPECT_TRUE(MakeTileLayout(type, uint64_t{1} << 32, 4096, tile_rows).ok());
    }
    for (uint32_t tile_rows : {0u, 2u, 8u, 15u, 17u, 32u, 0xffffffffu}) {
      EXPECT_FALSE(MakeTileLayout(type, 16, 16, tile_rows).ok()) << tile_rows;
    }
  }
}

TEST(MakeTileLayout, RefusesTypesThatDoNotExist) {
  for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kNone, 0},
                                 WeightType{WeightKind::kInt4, WeightOffset::kNone, 16},
                                 WeightType{WeightKind::kInt8, WeightOffset::kNone, 256},
                                 WeightType{WeightKind::kF16, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kF32, WeightOffset::kMinimum, 0},
                                 WeightType{WeightKind::kInt5, WeightOffset::kZeroPoint, 32},
                                 WeightType{WeightKind::kInt5, WeightOffset::kNone, 64},
                                 WeightType{WeightKind::kQ4K, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kQ5K, WeightOffset::kMinimum, 16},
                                 WeightType{WeightKind::kQ6K, WeightOffset::kNone, 32},
                                 WeightType{static_cast<WeightKind>(9), WeightOffset::kNone, 0},
                                 WeightType{WeightKind::kInt8, static_cast<WeightOffset>(3), 32}}) {
    EXPECT_EQ(MakeTileLayout(type, 16, 16, 16).status().code(), ErrorCode::kUnsupported);
  }
}

}  // namespace
}  // namespace sluice
