#include "runtime/machine.h"

#include <gtest/gtest.h>

#include "kernels/select.h"

namespace sluice {
namespace {

TEST(Machine, MeasuresAndProbesWithoutTrouble) {
  const MachineFacts facts = ProbeMachine();
  EXPECT_FALSE(facts.tables.empty());
  EXPECT_GT(facts.memory_bytes, 0u);
  EXPECT_LE(facts.available_bytes, facts.memory_bytes);
  const Result<MatmulRate> rate =
      MeasureMatmulOn({WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, "", 1);
  ASSERT_TRUE(rate.ok()) << rate.status().message();
  EXPECT_EQ(rate->type, "int4:g128:zero");
  EXPECT_GT(rate->one_token_bytes_per_s, 0);
  EXPECT_GT(rate->batch_bytes_per_s, 0);
  EXPECT_EQ(MeasureMatmulOn({}, "mmx", 1).status().code(), ErrorCode::kInvalidArgument);
}

TEST(Machine, ProductsInBf16AreMeasuredWhereATableHasThem) {
  const WeightType type = {WeightKind::kInt4, WeightOffset::kNone, 32};
  for (const OpTable* table : AvailableTables()) {
    const Result<double> rate = MeasureBf16BatchOn(type, table->name, 1);
    EXPECT_EQ(rate.status().code(), CheckBf16(*table).code()) << table->name;
    if (rate.ok()) {
      EXPECT_GT(*rate, 0) << table->name;
    }
  }
  EXPECT_EQ(MeasureBf16BatchOn(type, "mmx", 1).status().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
