// Rows on their way into tiles: the fast way against the plain one, the error against arithmetic.
#include "loaders/convert_row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "formats/half.h"
#include "loaders/group_quantizer.h"
#include "loaders/quantizer.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::vector<float> RandomRow(uint64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> row(cols);
  for (float& value : row) value = normal(random);
  // What checkpoints also have: exact zeros, an outlier, values that are subnormal in f16.
  for (uint64_t i = 0; i < cols; i += 11) row[i] = 0;
  if (cols > 5) row[5] = 3.0f;
  if (cols > 7) row[7] = 1e-6f;
  return row;
}

std::vector<std::byte> Encoded(SourceType type, const std::vector<float>& row) {
  std::vector<std::byte> bytes(SourceRowBytes(type, row.size()));
  for (size_t i = 0; i < row.size(); ++i) {
    if (type == SourceType::kF32) {
      std::memcpy(bytes.data() + 4 * i, &row[i], 4);
    } else {
      const uint16_t half = type == SourceType::kF16 ? FloatToF16(row[i]) : FloatToBf16(row[i]);
      std::memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

// The same row by way of the three functions that do one thing each.
void ConvertPlainly(SourceType type, const std::byte* row, const TileLayout& layout,
                    uint32_t row_in_tile, std::byte* tile) {
  std::vector<float> values(layout.cols);
  std::vector<uint32_t> integers(layout.cols);
  std::vector<uint16_t> scales(layout.groups_per_row()), offsets(layout.groups_per_row());
  RowCodes codes;
  codes.values = integers.data();
  codes.scales = scales.data();
  codes.offsets = offsets.data();
  DecodeSourceRow(type, row, layout.cols, values.data());
  ASSERT_TRUE(QuantizeRow(values.data(), layout, codes).ok());
  PackRow(layout, row_in_tile, codes, tile);
}

TEST(RowConverter, EveryTypeAndLengthGivesTheBytesOfThePlainWay) {
  for (const SourceType source : {SourceType::kF32, SourceType::kF16, SourceType::kBF16}) {
    for (const WeightKind kind : {WeightKind::kInt4, WeightKind::kInt8}) {
      for (const WeightOffset offset :
           {WeightOffset::kNone, WeightOffset::kZeroPoint, WeightOffset::kMinimum}) {
        for (const uint16_t group_size : {32, 64, 128}) {
          for (const uint64_t cols : {1, 31, 32, 33, 97, 127, 128, 129, 160, 384, 1009}) {
            for (const uint32_t tile_rows : {1u, 16u}) {
              SCOPED_TRACE(::testing::Message()
                           << SourceTypeName(source) << " to kind " << static_cast<int>(kind)
                           << " offset " << static_cast<int>(offset) << " group " << group_size
                           << " cols " << cols << " tile rows " << tile_rows);
              Result<TileLayout> layout =
                  MakeTileLayout({kind, offset, group_size}, tile_rows, cols, tile_rows);
              ASSERT_TRUE(layout.ok());
              std::vector<std::byte> fast(layout->tile_bytes), plain(layout->tile_bytes);
              RowConverter converter(source, *layout);
              for (uint32_t r = 0; r < tile_rows; ++r) {
                const std::vector<std::byte> row =
                    Encoded(source, RandomRow(cols, r * 7 + group_size));
                ASSERT_TRUE(converter.Convert(row.data(), r, fast.data()).ok());
                ConvertPlainly(source, row.data(), *layout, r, plain.data());
              }
              ASSERT_TRUE(fast == plain);
            }
          }
        }
      }
    }
  }
}

TEST(RowConverter, ErrorIsBoundedByTheStepOfTheWholeRange) {
  // The chosen grid is not worse, in squares, than the one that spans the group's range. There
  // every value lies within half a step of the grid or, at the ends, within a whole one: a zero
  // point is rounded, and a symmetric grid has one step less on one side.
  const uint64_t cols = 1000;
  for (const WeightOffset offset : {WeightOffset::kNone, WeightOffset::kZeroPoint}) {
    Result<TileLayout> layout = MakeTileLayout({WeightKind::kInt4, offset, 128}, 1, cols, 1);
    ASSERT_TRUE(layout.ok());
    const std::vector<float> row = RandomRow(cols, 3);
    std::vector<std::byte> tile(layout->tile_bytes);
    RowConverter converter(SourceType::kF32, *layout);
    ASSERT_TRUE(converter.Convert(Encoded(SourceType::kF32, row).data(), 0, tile.data()).ok());
    std::vector<float> back(cols);
    DequantizeRow(*layout, tile.data(), 0, back.data());
    for (uint64_t begin = 0; begin < cols; begin += 128) {
      const uint64_t end = std::min<uint64_t>(cols, begin + 128);
      double low = 0, high = 0, squares = 0;
      for (uint64_t k = begin; k < end; ++k) {
        low = std::min(low, double{row[k]});
        high = std::max(high, double{row[k]});
        squares += std::pow(double{row[k]} - back[k], 2);
      }
      const double step =
          offset == WeightOffset::kNone ? std::max(-low, high) / 8 : (high - low) / 15;
      EXPECT_LE(squares, static_cast<double>(end - begin) * step * step) << begin;
    }
  }
}

TEST(RowConverter, UniformValuesHaveTheErrorOfRounding) {
  // Uniform in [-1, 1]: steps of 2/15, so a mean squared error of step^2 / 12. Smaller spans cut
  // off too much to be better by more than a little.
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> row(16384);
  for (float& value : row) value = uniform(random);
  Result<TileLayout> layout =
      MakeTileLayout({WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, 1, row.size(), 1);
  ASSERT_TRUE(layout.ok());
  std::vector<std::byte> tile(layout->tile_bytes);
  RowConverter converter(SourceType::kF32, *layout);
  ASSERT_TRUE(converter.Convert(Encoded(SourceType::kF32, row).data(), 0, tile.data()).ok());
  std::vector<float> back(row.size());
  DequantizeRow(*layout, tile.data(), 0, back.data());
  double squares = 0;
  for (size_t k = 0; k < row.size(); ++k) squares += std::pow(double{row[k]} - back[k], 2);
  const double expected = std::pow(2.0 / 15, 2) / 12;
  EXPECT_NEAR(squares / static_cast<double>(row.size()) / expected, 1.0, 0.1);
}

TEST(RowConverter, ValuesOnTheGridComeBackExactly) {
  // s (q - z) with s = 1/16, z = 5: all 16 values occur, so the range is the grid's.
  std::vector<float> row(128);
  for (int i = 0; i < 128; ++i)
    row[static_cast<size_t>(i)] = 0.0625f * static_cast<float>(i % 16 - 5);
  Result<TileLayout> layout =
      MakeTileLayout({WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, 1, 128, 1);
  ASSERT_TRUE(layout.ok());
  std::vector<std::byte> tile(layout->tile_bytes);
  RowConverter converter(SourceType::kBF16, *layout);
  ASSERT_TRUE(converter.Convert(Encoded(SourceType::kBF16, row).data(), 0, tile.data()).ok());
  std::vector<float> back(128);
  DequantizeRow(*layout, tile.data(), 0, back.data());
  EXPECT_EQ(back, row);
}

TEST(RowConverter, ValueThatIsNoNumberIsRefusedWithItsColumn) {
  for (const SourceType source : {SourceType::kF32, SourceType::kF16, SourceType::kBF16}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      for (const uint64_t column : {0, 31, 128, 199}) {
        std::vector<float> row = RandomRow(200, 1);
        row[column] = bad;
        Result<TileLayout> layout =
            MakeTileLayout({WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, 1, 200, 1);
        std::vector<std::byte> tile(layout->tile_bytes);
        RowConverter converter(source, *layout);
        const Status status = converter.Convert(Encoded(source, row).data(), 0, tile.data());
        EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
        EXPECT_THAT(status.message(), HasSubstr("column " + std::to_string(column) + " "));
      }
    }
  }
}

TEST(RowConverter, ValueWhoseScaleF16CannotHoldIsRefused) {
  std::vector<float> row(64, 1.0f);
  row[3] = 3e6f;
  Result<TileLayout> layout =
      MakeTileLayout({WeightKind::kInt4, WeightOffset::kZeroPoint, 64}, 1, 64, 1);
  std::vector<std::byte> tile(layout->tile_bytes);
  RowConverter converter(SourceType::kF32, *layout);
  const Status status = converter.Convert(Encoded(SourceType::kF32, row).data(), 0, tile.data());
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
}

// Also where nothing is rounded: of a float its value, of a block of GGUF one of its scales.
TEST(RowConverter, KeptValueThatIsNoNumberIsRefusedWithItsColumn) {
  struct Case {
    SourceType type;
    uint64_t byte;  // where an f16 (or the upper half of a float) of block 1 lies in it
    uint64_t column;
  };
  for (const Case& c :
       {Case{SourceType::kF32, 2, 1}, Case{SourceType::kF16, 0, 1}, Case{SourceType::kBF16, 0, 1},
        Case{SourceType::kQ8_0, 0, 32}, Case{SourceType::kQ4_0, 0, 32},
        Case{SourceType::kQ4_1, 0, 32}, Case{SourceType::kQ4_1, 2, 32},
        Case{SourceType::kQ5_0, 0, 32}, Case{SourceType::kQ5_1, 0, 32},
        Case{SourceType::kQ5_1, 2, 32}, Case{SourceType::kQ4K, 0, 256},
        Case{SourceType::kQ4K, 2, 256}, Case{SourceType::kQ5K, 0, 256},
        Case{SourceType::kQ5K, 2, 256}, Case{SourceType::kQ6K, 208, 256}}) {
    const uint64_t cols = 512;
    Result<TileLayout> layout = MakeTileLayout(TypeThatKeeps(c.type), 1, cols, 1);
    ASSERT_TRUE(layout.ok()) << layout.status().message();
    std::vector<std::byte> row(SourceRowBytes(c.type, cols));
    std::vector<std::byte> tile(layout->tile_bytes);
    EXPECT_TRUE(RowConverter(c.type, *layout).Convert(row.data(), 0, tile.data()).ok());
    // The exponent of an infinity, in either sign and with any fraction.
    const bool wide = c.type == SourceType::kF32 || c.type == SourceType::kBF16;
    for (const uint32_t bits :
         wide ? std::array{0x7f80u, 0xff80u, 0x7fc0u} : std::array{0x7c00u, 0xfc00u, 0x7e01u}) {
      const uint64_t block_bytes = SourceRowBytes(c.type, SourceBlockValues(c.type));
      row[block_bytes + c.byte] = static_cast<std::byte>(bits & 0xff);
      row[block_bytes + c.byte + 1] = static_cast<std::byte>(bits >> 8);
      const Status status = RowConverter(c.type, *layout).Convert(row.data(), 0, tile.data());
      EXPECT_EQ(status.code(), ErrorCode::kCorrupt) << SourceTypeName(c.type) << " " << c.byte;
      EXPECT_THAT(status.message(), HasSubstr("column " + std::to_string(c.column) + " "));
    }
  }
}

constexpr WeightType kRoundedTypes[] = {{WeightKind::kInt4, WeightOffset::kZeroPoint, 32},
                                        {WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                                        {WeightKind::kInt4, WeightOffset::kNone, 32},
                                        {WeightKind::kInt4, WeightOffset::kMinimum, 32},
                                        {WeightKind::kInt8, WeightOffset::kNone, 32},
                                        {WeightKind::kInt8, WeightOffset::kNone, 0},
                                        {WeightKind::kF16, WeightOffset::kNone, 0}};

std::vector<float> Converted(SourceType source, const WeightType& type,
                             const std::vector<float>& row) {
  Result<TileLayout> layout = MakeTileLayout(type, 1, row.size(), 1);
  EXPECT_TRUE(layout.ok()) << layout.status().message();
  std::vector<std::byte> tile(layout->tile_bytes);
  RowConverter converter(source, *layout);
  EXPECT_TRUE(converter.Convert(Encoded(source, row).data(), 0, tile.data()).ok());
  std::vector<float> back(row.size());
  DequantizeRow(*layout, tile.data(), 0, back.data());
  return back;
}

// Where an f16 becomes subnormal, its last place is 2^-24.
double F16RoundingError(double value) { return std::max(std::fabs(value) * 0x1p-11, 0x1p-25); }

TEST(RowConverter, GroupsOfZerosStayZero) {
  for (const WeightType& type : kRoundedTypes) {
    for (const SourceType source : {SourceType::kF32, SourceType::kF16, SourceType::kBF16}) {
      std::vector<float> row(384, 0.0f);
      for (size_t i = 0; i < row.size(); i += 2) row[i] = -0.0f;
      for (const float value : Converted(source, type, row)) EXPECT_EQ(value, 0.0f);
    }
  }
}

// Whatever their size, from the smallest subnormal of bf16 to the largest f16. The grid ends at the
// value, so that only its step is rounded.
TEST(RowConverter, GroupsOfEqualValuesComeBackWithinTheRoundingOfTheirScale) {
  for (const WeightType& type : kRoundedTypes) {
    const double levels = type.kind == WeightKind::kInt4 ? 15 : type.quantized() ? 255 : 1;
    for (const SourceType source : {SourceType::kF32, SourceType::kBF16}) {
      for (const float magnitude :
           {0x1p-133f, 1e-30f, 0x1p-24f, 0x1p-20f, 6.1e-5f, 0.3f, 1.0f, 3.0f, 65280.0f}) {
        for (const float sign : {1.0f, -1.0f}) {
          const float value = Bf16ToFloat(FloatToBf16(sign * magnitude));
          // Values beside it are zeros, in groups of their own.
          std::vector<float> row(256, 0.0f);
          std::fill_n(row.begin() + 128, 128, value);
          const std::vector<float> back = Converted(source, type, row);
          const double bound = levels * F16RoundingError(value / levels) * 1.001;
          for (size_t i = 0; i < row.size(); ++i) {
            ASSERT_LE(std::fabs(static_cast<double>(back[i]) - row[i]), bound)
                << WeightTypeName(type) << " " << value << " at " << i;
          }
        }
      }
    }
  }
}

// f16 checkpoints have them where training let a channel die. Steps are whole multiples of 2^-24
// there, so one that is rounded down cuts the ends of the range.
TEST(RowConverter, GroupsOfSubnormalsComeBackWithinTheirRoundedStep) {
  for (const WeightType& type : kRoundedTypes) {
    const double levels = type.kind == WeightKind::kInt4 ? 15 : 254;
    for (const int largest : {1, 7, 100, 1023}) {  // in units of 2^-24
      std::mt19937 random(static_cast<uint32_t>(largest));
      std::uniform_int_distribution<int> draw(-largest, largest);
      std::vector<float> row(256);
      for (size_t i = 0; i < row.size(); ++i) {
        const int units = i % 32 == 0 ? largest : i % 32 == 1 ? -largest : draw(random);
        row[i] = static_cast<float>(units) * 0x1p-24f;
      }
      const std::vector<float> back = Converted(SourceType::kF16, type, row);
      double sum = 0;
      for (size_t i = 0; i < row.size(); ++i) {
        const double units = (static_cast<double>(back[i]) - row[i]) * 0x1p24;
        sum += units * units;
      }
      const double step = 2 * largest / levels;
      const double rounded = std::nearbyint(step);
      // A zero point, or a side with a level less, moves the grid by at most a step.
      const double bound = 1.5 * rounded + levels * std::max(0.0, step - rounded);
      EXPECT_LE(std::sqrt(sum / static_cast<double>(row.size())), type.quantized() ? bound : 0)
          << WeightTypeName(type) << " " << largest;
    }
  }
}

TEST(GroupKernels, EveryInstructionSetGivesTheSameBits) {
  const auto all = AvailableGroupKernels();
  ASSERT_FALSE(all.empty());
  for (const int64_t count : {1, 2, 15, 16, 17, 31, 32, 33, 127, 128, 1000}) {
    const std::vector<float> row = RandomRow(static_cast<uint64_t>(count), 9);
    for (const QuantizationGrid grid : {QuantizationGrid{0.01f, -0.08f, 15},
                                        {0.0f, 0.0f, 15},
                                        {-0.02f, 0.16f, 15},
                                        {0.025f, -3.2f, 255}}) {
      // By hand: 16 sums, added in pairs.
      float sums[16] = {};
      std::vector<uint8_t> expected_codes;
      const float inverse = grid.scale != 0 ? 1.0f / grid.scale : 0.0f;
      for (int64_t i = 0; i < count; ++i) {
        const float x = row[static_cast<size_t>(i)];
        const float q = std::nearbyint(
            std::clamp((x - grid.shift) * inverse, 0.0f, static_cast<float>(grid.levels)));
        const float difference = x - (q * grid.scale + grid.shift);
        sums[i % 16] += difference * difference;
        expected_codes.push_back(static_cast<uint8_t>(q));
      }
      for (int half = 8; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) sums[l] += sums[l + half];
      }
      for (const GroupKernels& kernels : all) {
        SCOPED_TRACE(::testing::Message() << kernels.name << " " << count);
        std::vector<uint8_t> codes(static_cast<size_t>(count));
        kernels.round(row.data(), count, grid, codes.data());
        EXPECT_EQ(codes, expected_codes);
        EXPECT_EQ(kernels.error(row.data(), count, grid), sums[0]);
        float low = 0, high = 0;
        kernels.range(row.data(), count, &low, &high);
        EXPECT_EQ(low, *std::min_element(row.begin(), row.end()));
        EXPECT_EQ(high, *std::max_element(row.begin(), row.end()));
      }
    }
  }
}

TEST(QuantizeGroup, HasTheLeastErrorOfTheCandidates) {
  // Against every scale that spans from 0.8 to 1 of the range, by the definition.
  const std::vector<float> row = RandomRow(128, 21);
  const WeightType type = {WeightKind::kInt4, WeightOffset::kZeroPoint, 128};
  std::vector<uint8_t> codes(128);
  uint16_t scale = 0, zero = 0;
  ASSERT_TRUE(QuantizeGroup(AvailableGroupKernels().back(), type, row.data(), 128, codes.data(),
                            &scale, &zero)
                  .ok());
  double chosen = 0;
  for (size_t i = 0; i < 128; ++i) {
    chosen +=
        std::pow(row[i] - double{F16ToFloat(scale)} * (codes[i] - static_cast<double>(zero)), 2);
  }
  const auto [low, high] = std::minmax_element(row.begin(), row.end());
  for (const double span : {1.0, 0.96, 0.92, 0.88, 0.84, 0.8}) {
    const double s = F16ToFloat(FloatToF16(static_cast<float>((double{*high} - *low) * span / 15)));
    const double z = std::nearbyint(std::clamp(-double{*low} * span / s, 0.0, 15.0));
    double error = 0;
    for (const float x : row) {
      const double q = std::nearbyint(std::clamp(x / s + z, 0.0, 15.0));
      error += std::pow(x - s * (q - z), 2);
    }
    EXPECT_LE(chosen, error * 1.001) << span;
  }
}

}  // namespace
}  // namespace sluice
