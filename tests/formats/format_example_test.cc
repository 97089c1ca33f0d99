// The example in FORMAT.md is true.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "formats/tile_layout.h"

namespace sluice {
namespace {

TEST(FormatExample, TheTileOfTheDocumentIsWhatIsPacked) {
  std::ifstream document(std::string(SLUICE_TEST_DATA_DIR) + "/../formats/FORMAT.md");
  std::string line;
  std::vector<unsigned> documented;
  while (std::getline(document, line)) {
    if (!line.starts_with("00 38 00 bc")) continue;
    std::istringstream words(line);
    for (unsigned byte; words >> std::hex >> byte;) documented.push_back(byte);
  }
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

}  // namespace
}  // namespace sluice
