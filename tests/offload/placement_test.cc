#include "offload/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

// Embedding, `layers` times attention and FFN, head: sizes as those of a Llama of 8 billion.
std::vector<PlacementGroup> Model(int64_t layers, uint64_t attention = 22 * kMiB,
                                  uint64_t ffn = 93 * kMiB, uint64_t head = 544 * kMiB) {
  std::vector<PlacementGroup> groups = {{GroupKind::kEmbedding, -1, 544 * kMiB, 0, 16 * kMiB}};
  for (int64_t layer = 0; layer < layers; ++layer) {
    groups.push_back({GroupKind::kAttention, layer, attention, 16384, 9 * kMiB});
    groups.push_back({GroupKind::kFfn, layer, ffn, 16384, 16 * kMiB});
  }
  groups.push_back({GroupKind::kHead, -1, head, 16384, 16 * kMiB});
  return groups;
}

uint64_t CycleBytes(const std::vector<PlacementGroup>& groups) {
  uint64_t bytes = 0;
  for (const PlacementGroup& group : groups) {
    bytes += group.vector_bytes + (group.kind == GroupKind::kEmbedding ? 0 : group.matrix_bytes);
  }
  return bytes;
}

Placement Place(const std::vector<PlacementGroup>& groups, uint64_t budget,
                const std::string& rules = "") {
  const std::vector<PlaceRule> parsed = *ParsePlaceRules(rules);
  PlacementOptions options;
  options.budget_bytes = budget;
  options.rules = parsed;
  Result<Placement> placement = PlaceGroups(groups, options);
  EXPECT_TRUE(placement.ok()) << placement.status().message();
  return placement.ok() ? *placement : Placement();
}

TEST(Placement, WhatFitsIsResidentAndNeedsNoRing) {
  const std::vector<PlacementGroup> groups = Model(32);
  const Placement placement = Place(groups, CycleBytes(groups));
  EXPECT_EQ(placement.streamed_bytes, 0u);
  EXPECT_EQ(placement.ring_bytes, 0u);
  EXPECT_EQ(placement.resident_bytes, CycleBytes(groups));
  EXPECT_EQ(placement.gathered_bytes, 544 * kMiB);
}

TEST(Placement, AByteLessThanAllStreamsSomething) {
  const std::vector<PlacementGroup> groups = Model(32);
  const Placement placement = Place(groups, CycleBytes(groups) - 1);
  EXPECT_GT(placement.streamed_bytes, 0u);
  EXPECT_GT(placement.ring_bytes, 0u);
}

TEST(Placement, EveryBudgetIsKeptAndNothingStreamsThatWouldFitBesideAFullRing) {
  const std::vector<PlacementGroup> groups = Model(32);
  for (uint64_t budget = SmallestBudget(groups); budget < CycleBytes(groups); budget += 37 * kMiB) {
    const Placement placement = Place(groups, budget);
    EXPECT_LE(placement.resident_bytes + placement.ring_bytes, budget);
    EXPECT_EQ(placement.resident_bytes + placement.streamed_bytes, CycleBytes(groups));
    EXPECT_LE(placement.ring_bytes, 256 * kMiB);
    const uint64_t full_ring = std::max(48 * kMiB, std::min(256 * kMiB, budget / 4));
    for (size_t i = 1; i < groups.size(); ++i) {
      if (placement.tiers[i] == Tier::kRam) continue;
      EXPECT_GT(placement.resident_bytes + groups[i].matrix_bytes + full_ring, budget) << budget;
    }
  }
}

// Anywhere in the layers the bytes streamed so far are near their even share: at most one and a
// half of the larger groups away.
TEST(Placement, WhatStreamsIsSpreadEvenlyOverTheLayers) {
  const std::vector<PlacementGroup> groups = Model(80, 80 * kMiB, 374 * kMiB, 1088 * kMiB);
  const uint64_t all = CycleBytes(groups);
  const double layers = 80 * 454.0 * kMiB;
  for (double share : {0.05, 0.25, 0.5, 0.75, 0.9}) {
    const Placement placement =
        Place(groups, static_cast<uint64_t>(share * static_cast<double>(all)));
    EXPECT_EQ(placement.tiers.back(), Tier::kRam) << share;
    double seen = 0;
    double streamed = 0;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (groups[i].kind == GroupKind::kEmbedding || groups[i].kind == GroupKind::kHead) continue;
      seen += static_cast<double>(groups[i].matrix_bytes);
      if (placement.tiers[i] == Tier::kDisk)
        streamed += static_cast<double>(groups[i].matrix_bytes);
      const double even = seen * static_cast<double>(placement.streamed_bytes) / layers;
      EXPECT_LT(std::fabs(streamed - even), 1.5 * 374 * kMiB)
          << "share " << share << " group " << i;
    }
  }
}

TEST(Placement, AHeadThatIsLargerThanTheBudgetStreams) {
  const std::vector<PlacementGroup> groups = Model(32);
  const Placement placement = Place(groups, 500 * kMiB);
  EXPECT_EQ(placement.tiers.back(), Tier::kDisk);
  EXPECT_GT(placement.resident_bytes, 250 * kMiB);
}

TEST(Placement, TooLittleIsRefusedWithTheSmallestBudgetThatWouldDo) {
  const std::vector<PlacementGroup> groups = Model(32);
  PlacementOptions options;
  options.budget_bytes = SmallestBudget(groups) - 1;
  const Result<Placement> placement = PlaceGroups(groups, options);
  EXPECT_EQ(placement.status().code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(placement.status().message(), HasSubstr(std::to_string(SmallestBudget(groups))));
  options.budget_bytes = SmallestBudget(groups);
  EXPECT_TRUE(PlaceGroups(groups, options).ok());
}

TEST(Placement, RulesOverrideAndTheLastOneWins) {
  const std::vector<PlacementGroup> groups = Model(32);
  const Placement placement =
      Place(groups, CycleBytes(groups), "layers.0-19.ffn=disk,layers.3=ram,head=disk");
  for (size_t i = 1; i < groups.size(); ++i) {
    const PlacementGroup& group = groups[i];
    const bool disk = group.kind == GroupKind::kHead ||
                      (group.kind == GroupKind::kFfn && group.layer <= 19 && group.layer != 3);
    EXPECT_EQ(placement.tiers[i], disk ? Tier::kDisk : Tier::kRam) << i;
  }
}

TEST(Placement, RulesThatDoNotFitAreRefused) {
  const std::vector<PlacementGroup> groups = Model(32);
  const std::vector<PlaceRule> rules = *ParsePlaceRules("ffn=ram");
  PlacementOptions options;
  options.budget_bytes = 1024 * kMiB;
  options.rules = rules;
  EXPECT_EQ(PlaceGroups(groups, options).status().code(), ErrorCode::kDoesNotFit);
}

TEST(Placement, ARuleThatMatchesNothingIsAnError) {
  const std::vector<PlacementGroup> groups = Model(4);
  for (const char* text : {"experts=ram", "layers.4=ram", "layers.9-12.ffn=disk"}) {
    const std::vector<PlaceRule> rules = *ParsePlaceRules(text);
    PlacementOptions options;
    options.budget_bytes = CycleBytes(groups);
    options.rules = rules;
    const Status status = PlaceGroups(groups, options).status();
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(text));
  }
}

TEST(Placement, RulesThatAreNoneAreRefused) {
  for (const char* text :
       {"ffn", "ffn=vram", "=ram", "layers=ram", "layers.=ram", "layers.x=ram", "layers.3-1=ram",
        "layers.1-=ram", "layers.1.norm=ram", "ffn=ram,,head=ram", "layers.-1=ram"}) {
    EXPECT_EQ(ParsePlaceRules(text).status().code(), ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_TRUE(ParsePlaceRules("")->empty());
}

TEST(Placement, AModelOfOneSmallGroup) {
  const std::vector<PlacementGroup> groups = {{GroupKind::kHead, -1, 4096, 0, 4096}};
  EXPECT_EQ(Place(groups, 4096).resident_bytes, 4096u);
  PlacementOptions options;
  options.budget_bytes = 4095;
  EXPECT_EQ(PlaceGroups(groups, options).status().code(), ErrorCode::kDoesNotFit);
}

}  // namespace
}  // namespace sluice
