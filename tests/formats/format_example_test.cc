// The example in FORMAT.md is true.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "formats/tile_layout.h"

namespace sluice {
namespace {

// The bytes of the line of the document that begins so.
std::vector<unsigned> Documented(const std::string& begin) {
  std::ifstream document(std::string(SLUICE_TEST_DATA_DIR) + "/../formats/FORMAT.md");
  std::string line;
  std::vector<unsigned> bytes;
  while (std::getline(document, line)) {
    if (!line.starts_with(begin)) continue;
    std::istringstream words(line);
    for (unsigned byte; words >> std::hex >> byte;) bytes.push_back(byte);
  }
  return bytes;
}

TEST(FormatExample, TheTileOfTheDocumentIsWhatIsPacked) {
  const std::vector<unsigned> documented = Documented("00 38 00 bc");
  ASSERT_EQ(documented.size(), 20u);

  Result<TileLayout> layout =
      MakeTileLayout({WeightKind::kInt4, WeightOffset::kMinimum, 32}, 1, 8, 1);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->tile_bytes, documented.size());
  uint32_t q[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint16_t scale = 0x3800, minimum = 0xbc00;
  std::vector<std::byte> tile(layout->tile_bytes);
  PackRow(*layout, 0, {q, &scale, &minimum}, tile.data());
  for (size_t i = 0; i < tile.size(); ++i) {
    EXPECT_EQ(static_cast<unsigned>(tile[i]), documented[i]) << "byte " << i;
  }
  float values[8];
  DequantizeRow(*layout, tile.data(), 0, values);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(values[i], 0.5f * static_cast<float>(i + 1) - 1);
}

TEST(FormatExample, TheTileOfFiveBitsIsWhatIsPacked) {
  const std::vector<unsigned> documented = Documented("00 38 00 00 03");
  ASSERT_EQ(documented.size(), 24u);
  Result<TileLayout> layout = MakeTileLayout({WeightKind::kInt5, WeightOffset::kNone, 32}, 1, 8, 1);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->tile_bytes, documented.size());
  uint32_t q[8] = {17, 18, 19, 20, 21, 22, 23, 24};
  uint16_t scale = 0x3800;
  std::vector<std::byte> tile(layout->tile_bytes);
  PackRow(*layout, 0, {q, &scale, nullptr}, tile.data());
  for (size_t i = 0; i < tile.size(); ++i) {
    EXPECT_EQ(static_cast<unsigned>(tile[i]), documented[i]) << "byte " << i;
  }
  float values[8];
  DequantizeRow(*layout, tile.data(), 0, values);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(values[i], 0.5f * static_cast<float>(i + 1));
}

// Numbers worked out by hand from FORMAT.md, one of each plane of a super-block, R = 1.
TEST(FormatExample, SuperBlocksByHand) {
  std::vector<uint32_t> q(256, 0);
  q[1] = 31;    // bits 4: plane 0, byte 1, bit 0; low nibble of byte 1
  q[40] = 9;    // group 1, its channel 8: low nibble of the second load
  q[255] = 16;  // group 7, its channel 31: bit 7 of byte 3, no nibble
  std::vector<uint16_t> scales = {1, 63, 0, 0, 0, 0, 0, 32};
  std::vector<uint16_t> minimums = {2, 33, 0, 0, 0, 0, 0, 15};
  uint16_t d = 0x3c00, dmin = 0x3800;  // 1 and 0.5
  Result<TileLayout> layout =
      MakeTileLayout({WeightKind::kQ5K, WeightOffset::kMinimum, 32}, 1, 256, 1);
  ASSERT_TRUE(layout.ok());
  ASSERT_EQ(layout->tile_bytes, 176u);
  std::vector<std::byte> tile(176);
  PackRow(*layout, 0, {q.data(), scales.data(), minimums.data(), &d, &dmin}, tile.data());
  std::vector<unsigned> expected(176, 0);
  expected[1] = 0x3c, expected[3] = 0x38;
  expected[4] = 0x21;              // 1 and 2
  expected[5] = 0x1f;              // 63 = 3 * 16 + 15 and 33 = 2 * 16 + 1
  expected[11] = 0xf0;             // 32 = 2 * 16 and 15
  expected[12] = 3 << 4 | 2 << 6;  // upper bits of group 1
  expected[15] = 2 << 4;           // of group 7
  expected[16 + 1] = 1;            // plane of group 0
  expected[16 + 4 + 1] = 15;
  expected[16 + 20 + 4 + 4] = 9;    // second 4 bytes of nibbles of group 1
  expected[16 + 7 * 20 + 3] = 128;  // plane of group 7
  for (size_t i = 0; i < tile.size(); ++i) {
    EXPECT_EQ(static_cast<unsigned>(tile[i]), expected[i]) << "byte " << i;
  }
  float values[256];
  DequantizeRow(*layout, tile.data(), 0, values);
  EXPECT_EQ(values[0], -1);                     // 1 * 0 - 0.5 * 2
  EXPECT_EQ(values[1], 30);                     // 31 - 1
  EXPECT_EQ(values[40], 63 * 9 - 0.5f * 33);    // 550.5
  EXPECT_EQ(values[255], 32 * 16 - 0.5f * 15);  // 504.5
}

}  // namespace
}  // namespace sluice
