#include "runtime/work_division.h"

#include <gtest/gtest.h>

#include "kernels/ops.h"

namespace sluice {
namespace {

TEST(WorkDivision, RangesAreNeverEmptyAndGiveEachThreadSeveral) {
  EXPECT_EQ(Grain(0, 4), 1);
  EXPECT_EQ(Grain(31, 4), 1);
  EXPECT_EQ(Grain(6400, 4), 200);
}

TEST(WorkDivision, OneTokensRangesAreLongReads) {
  EXPECT_EQ(TileGrain(64, 64 << 10, 1, 2), 4);  // 16 ranges of 256 KiB
  EXPECT_EQ(TileGrain(64, 1 << 10, 1, 2), 32);  // too little for more than one range a thread
  EXPECT_EQ(TileGrain(1, 64 << 10, 1, 8), 1);
}

TEST(WorkDivision, SeveralTokensTakeTilesByFours) {
  EXPECT_EQ(TileGrain(256, 1 << 10, 4, 2), 16);
  EXPECT_EQ(TileGrain(5, 1 << 10, 4, 2), 4);
  EXPECT_EQ(TileGrain(100000, 1 << 10, 64, 2), 16);
  EXPECT_EQ(TileGrain(1, 1 << 10, 64, 2), 2);
}

TEST(WorkDivision, FewTokensHaveTheirKvHeadsDivided) {
  EXPECT_EQ(AttentionGrain(1, 8, 2, 1), 4);
  EXPECT_EQ(AttentionGrain(1, 1, 4, 1), 1);
  // Whole tokens, several of one prompt.
  EXPECT_EQ(AttentionGrain(64, 8, 2, 64), 8 * 8);
  EXPECT_EQ(AttentionGrain(64, 8, 2, 1), 4 * 8);
}

TEST(WorkDivision, LongContextsOfFewTokensAreSplit) {
  EXPECT_EQ(AttentionSplits(1, 2, kAttentionSplitKeys), 0);
  EXPECT_EQ(AttentionSplits(1, 2, kAttentionSplitKeys + 1), 2);
  EXPECT_EQ(AttentionSplits(1, 1, 10 * kAttentionSplitKeys), 0);    // one thread
  EXPECT_EQ(AttentionSplits(17, 2, 10 * kAttentionSplitKeys), 0);   // many tokens
  EXPECT_EQ(AttentionSplits(16, 2, 100 * kAttentionSplitKeys), 0);  // no room for the parts
}

}  // namespace
}  // namespace sluice
