// Decoding of source rows against the gguf package (tests/golden/make_block_golden.py).
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "formats/mapped_file.h"
#include "loaders/checkpoint.h"
#include "loaders/quantizer.h"

namespace sluice {
namespace {

std::vector<std::byte> FromHex(const std::string& hex) {
  std::vector<std::byte> bytes(hex.size() / 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return bytes;
}

SourceType TypeOfName(const std::string& name) {
  for (const SourceType type : kAllSourceTypes) {
    if (name == SourceTypeName(type)) return type;
  }
  ADD_FAILURE() << "golden of an unknown type " << name;
  return SourceType::kF32;
}

TEST(DecodeSourceRow, EqualsTheGgufPackageToTheBit) {
  Result<std::string> text =
      ReadWholeFile(SLUICE_TEST_DATA_DIR "/golden/blocks.json", uint64_t{1} << 20);
  ASSERT_TRUE(text.ok()) << text.status().message();
  const nlohmann::json goldens = nlohmann::json::parse(*text);
  EXPECT_EQ(goldens.size(), std::size(kAllSourceTypes) - 1);  // all but F32
  for (const nlohmann::json& golden : goldens) {
    const auto name = golden["type"].get<std::string>();
    const SourceType type = TypeOfName(name);
    const std::vector<std::byte> row = FromHex(golden["bytes"]);
    const auto want = golden["value_bits"].get<std::vector<uint32_t>>();
    ASSERT_EQ(SourceRowBytes(type, want.size()), row.size()) << name;
    std::vector<float> out(want.size());
    DecodeSourceRow(type, row.data(), want.size(), out.data());
    size_t nan_count = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      // NaN has many bit patterns, and which one arithmetic gives is the processor's affair.
      if (std::isnan(std::bit_cast<float>(want[i]))) {
        ++nan_count;
        EXPECT_TRUE(std::isnan(out[i])) << name << " " << i;
      } else {
        EXPECT_EQ(std::bit_cast<uint32_t>(out[i]), want[i]) << name << " " << i;
      }
    }
    EXPECT_GT(nan_count, 0u) << name;
    EXPECT_LT(nan_count, want.size() / 2) << name;
  }
}

// A tile holds the same numbers: kept, packed and dequantized they are the source's values.
TEST(KeepRow, ATileOfKeptRowsHasTheValuesOfTheSourceToTheBit) {
  std::mt19937 random(11);
  for (const SourceType type : kAllSourceTypes) {
    for (const uint32_t tile_rows : {1u, 16u}) {
      const uint64_t cols = 768;
      const uint64_t rows = 17;
      Result<TileLayout> layout = MakeTileLayout(TypeThatKeeps(type), rows, cols, tile_rows);
      ASSERT_TRUE(layout.ok()) << layout.status().message();
      std::vector<std::byte> tiles(layout->size_bytes);
      std::vector<std::byte> row(SourceRowBytes(type, cols));
      std::vector<uint32_t> values(cols);
      std::vector<uint16_t> scales(48), offsets(48), super_scales(3), super_offsets(3);
      for (uint64_t r = 0; r < rows; ++r) {
        for (std::byte& b : row) b = static_cast<std::byte>(random());
        std::vector<float> want(cols), got(cols);
        DecodeSourceRow(type, row.data(), cols, want.data());
        KeepRow(type, row.data(), *layout,
                {values.data(), scales.data(), offsets.data(), super_scales.data(),
                 super_offsets.data()});
        std::byte* tile = tiles.data() + r / tile_rows * layout->tile_bytes;
        const auto row_in_tile = static_cast<uint32_t>(r % tile_rows);
        PackRow(*layout, row_in_tile,
                {values.data(), scales.data(), offsets.data(), super_scales.data(),
                 super_offsets.data()},
                tile);
        DequantizeRow(*layout, tile, row_in_tile, got.data());
        for (uint64_t k = 0; k < cols; ++k) {
          if (std::isnan(want[k]) && std::isnan(got[k])) continue;
          ASSERT_EQ(std::bit_cast<uint32_t>(got[k]), std::bit_cast<uint32_t>(want[k]))
              << SourceTypeName(type) << " row " << r << " column " << k;
        }
      }
    }
  }
}

TEST(DecodeSourceRow, CopiesF32) {
  const float values[] = {1.5f, -0.0f, INFINITY, 1e-45f};
  float out[4] = {};
  DecodeSourceRow(SourceType::kF32, reinterpret_cast<const std::byte*>(values), 4, out);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(values[i]));
  }
}

}  // namespace
}  // namespace sluice
