#include "kernels/select.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "kernels/cpu_features.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

TEST(SelectTable, RefComesFirstAndEachTableIsFoundByItsName) {
  const std::vector<const OpTable*> tables = AvailableTables();
  ASSERT_FALSE(tables.empty());
  EXPECT_STREQ(tables.front()->name, "ref");
  std::set<std::string> names;
  for (const OpTable* table : tables) {
    EXPECT_TRUE(names.insert(table->name).second) << table->name;
    const Result<const OpTable*> found = SelectTable(table->name);
    ASSERT_TRUE(found.ok());
    EXPECT_EQ(*found, table);
  }
}

TEST(SelectTable, AnEmptyNameIsTheFastest) {
  const Result<const OpTable*> table = SelectTable("");
  ASSERT_TRUE(table.ok());
  EXPECT_EQ(*table, AvailableTables().back());
}

TEST(SelectTable, RefusesANameThatIsNotKnown) {
  for (const char* name : {"avx", "REF", "avx2 ", "ref\n"}) {
    EXPECT_EQ(SelectTable(name).status().code(), ErrorCode::kInvalidArgument) << name;
  }
}

TEST(SelectTable, AnInstructionSetOfThisProcessorHasItsTable) {
  std::set<std::string> names;
  for (const OpTable* table : AvailableTables()) names.insert(table->name);
  EXPECT_EQ(names.count("avx2") == 1, CpuHasAvx2());
  EXPECT_EQ(names.count("avx512") == 1, CpuHasAvx512());
}

// 0.3 among activations up to 1 is not a multiple of 1/127: quantization changes the result, and so
// tells which table ran.
TEST(SelectTable, TheTableThatWasForcedIsTheOneThatRuns) {
  const TileLayout layout =
      MakeTileLayout({WeightKind::kInt4, WeightOffset::kNone, 32}, 1, 32, 16).value();
  std::vector<std::byte> tile(layout.tile_bytes);
  std::vector<uint32_t> values(32, 15);
  uint16_t one = 0x3c00;
  PackRow(layout, 0, {values.data(), &one, nullptr}, tile.data());
  std::vector<float> x(32, 0.3f);
  x[0] = 1;
  for (const OpTable* table : AvailableTables()) {
    const OpTable* forced = SelectTable(table->name).value();
    test::ActivationBuffer buffer(1, 32, 32);
    const QuantizedActivations xq = buffer.view();
    forced->quantize({x.data(), 32, 32, xq, 0, 1}, nullptr);
    MatmulArgs args{};
    args.layout = &layout;
    args.tiles = tile.data();
    args.num_tiles = args.rows = args.tokens = args.block_end = args.y_stride = 1;
    args.x = x.data();
    args.x_stride = 32;
    args.xq = &xq;
    float y = 0;
    args.y = &y;
    forced->matmul(args, nullptr);
    if (std::string(table->name) == "ref") {
      EXPECT_NEAR(y, 7 * (1 + 31 * 0.3), 1e-4);
    } else {  // 0.3 becomes 38/127
      EXPECT_NEAR(y, 7 * (127 + 31 * 38) / 127.0, 1e-4) << table->name;
    }
  }
}

}  // namespace
}  // namespace sluice
