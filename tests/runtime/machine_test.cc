#include "runtime/machine.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace sluice
