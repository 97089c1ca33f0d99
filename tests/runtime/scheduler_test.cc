// Which sequence runs when, without a model: the test plays the engine.
#include "runtime/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace sluice {
namespace {

constexpr LayerStateDescription kLayer = {.num_kv_heads = 1, .head_dim = 1};

class SchedulerTest : public testing::Test {
 protected:
  void Make(int64_t num_blocks, int64_t max_sequences, int64_t max_batch_tokens) {
    cache_ = *KvCache::Create(std::vector{kLayer}, KvType::kF16, num_blocks);
    scheduler_ = std::make_unique<Scheduler>(cache_.get(), max_sequences, max_batch_tokens);
    max_batch_tokens_ = max_batch_tokens;
  }

  Sequence* Add(uint64_t id, std::vector<int32_t> prompt, int64_t new_tokens, bool keep = false) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = id;
    sequence->max_tokens = static_cast<int64_t>(prompt.size()) + new_tokens;
    sequence->request.keep_cache = keep;
    sequence->tokens = std::move(prompt);
    sequence->prompt_tokens = sequence->size();
    Sequence* raw = sequence.get();
    scheduler_->Add(std::move(sequence));
    return raw;
  }
  Sequence* Add(uint64_t id, int64_t prompt_tokens, int64_t new_tokens) {
    return Add(id,
               std::vector<int32_t>(static_cast<size_t>(prompt_tokens), static_cast<int32_t>(id)),
               new_tokens);
  }

  // One pass; each sampled sequence gets a token and ends at its bound. False: nothing could run.
  bool Step() {
    if (!scheduler_->Next(&batch_, &sampled_)) return false;
    EXPECT_LE(batch_.tokens(), max_batch_tokens_);
    EXPECT_EQ(batch_.wanted.size(), sampled_.size());
    std::map<int64_t, int> slots;
    for (int64_t slot : batch_.slots) EXPECT_EQ(++slots[slot], 1) << "two tokens in one slot";
    scheduler_->Commit();
    for (Sequence* sequence : sampled_) {
      sequence->tokens.push_back(7);
      if (sequence->size() == sequence->max_tokens) {
        sequence->completion.finish_reason = FinishReason::kLength;
      }
    }
    for (auto& sequence : scheduler_->TakeFinished()) ended_.push_back(sequence->id);
    return true;
  }

  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Scheduler> scheduler_;
  int64_t max_batch_tokens_ = 0;
  Batch batch_;
  std::vector<Sequence*> sampled_;
  std::vector<uint64_t> ended_;
};

TEST_F(SchedulerTest, NothingToDo) {
  Make(4, 2, 8);
  EXPECT_FALSE(Step());
  EXPECT_TRUE(scheduler_->TakeFinished().empty());
  EXPECT_TRUE(scheduler_->TakeAll().empty());
}

TEST_F(SchedulerTest, ALongPromptGoesInChunksAndAsksForLogitsOfItsLastTokenOnly) {
  Make(4, 1, 8);
  Add(1, 20, 2);
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.tokens(), 8);
  EXPECT_TRUE(batch_.wanted.empty());
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.positions.front(), 8);
  EXPECT_EQ(batch_.lengths.back(), 16);
  EXPECT_TRUE(batch_.wanted.empty());
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.tokens(), 4);
  EXPECT_EQ(batch_.wanted, std::vector<int64_t>{3});
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.ids, std::vector<int32_t>{7});
  EXPECT_EQ(batch_.positions, std::vector<int32_t>{20});
  EXPECT_EQ(ended_, std::vector<uint64_t>{1});
  EXPECT_FALSE(Step());
}

TEST_F(SchedulerTest, OneTokenOfEachThatDecodesThenPromptsFillTheRest) {
  Make(64, 3, 10);
  Add(1, 3, 5);
  ASSERT_TRUE(Step());
  Add(2, 4, 5);
  ASSERT_TRUE(Step());  // decodes 1, prefills 2
  EXPECT_EQ(batch_.ids, (std::vector<int32_t>{7, 2, 2, 2, 2}));
  Add(3, 30, 5);
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.tokens(), 10);
  EXPECT_EQ(std::count(batch_.ids.begin(), batch_.ids.end(), 7), 2);
  EXPECT_EQ(std::count(batch_.ids.begin(), batch_.ids.end(), 3), 8);
  EXPECT_EQ(batch_.wanted, (std::vector<int64_t>{0, 1}));
}

TEST_F(SchedulerTest, FirstComeFirstServedWhenBlocksAreShort) {
  Make(4, 8, 64);
  Add(1, 32, 16);  // 3 blocks
  Add(2, 32, 16);  // 3 blocks: waits
  Add(3, 8, 8);    // 1 block: would fit, but came later
  ASSERT_TRUE(Step());
  EXPECT_EQ(std::count(batch_.ids.begin(), batch_.ids.end(), 1), 32);
  EXPECT_EQ(batch_.tokens(), 32);
  while (Step()) {
  }
  EXPECT_EQ(ended_.size(), 3u);
  EXPECT_EQ(ended_.front(), 1u);
  EXPECT_EQ(cache_->free_blocks(), 4);
}

TEST_F(SchedulerTest, NoMoreThanTheBoundRunAtOnce) {
  Make(64, 2, 64);
  for (uint64_t id = 1; id <= 5; ++id) Add(id, 4, 1);
  ASSERT_TRUE(Step());
  EXPECT_EQ(batch_.tokens(), 8);
  EXPECT_EQ(ended_, (std::vector<uint64_t>{1, 2}));
}

TEST_F(SchedulerTest, ASequenceThatIsCancelledWhileItWaitsOrRunsGivesItsBlocksBack) {
  Make(4, 8, 8);
  Sequence* running = Add(1, 40, 8);
  Sequence* waiting = Add(2, 40, 8);
  ASSERT_TRUE(Step());  // inside the prompt of 1
  running->completion.finish_reason = FinishReason::kCancelled;
  waiting->completion.finish_reason = FinishReason::kCancelled;
  EXPECT_EQ(scheduler_->TakeFinished().size(), 2u);
  EXPECT_EQ(cache_->free_blocks(), 4);
  EXPECT_FALSE(Step());
}

TEST_F(SchedulerTest, TakingAllLeavesNothingBehind) {
  Make(4, 8, 8);
  Add(1, 20, 8);
  Add(2, 40, 8);
  ASSERT_TRUE(Step());
  EXPECT_EQ(scheduler_->TakeAll().size(), 2u);
  EXPECT_EQ(cache_->free_blocks(), 4);
  EXPECT_TRUE(scheduler_->sequences().empty());
}

TEST_F(SchedulerTest, APromptTakesOverTheLongestPrefixThatWasKept) {
  Make(16, 4, 64);
  Add(1, {1, 2, 3, 4}, 1, true);
  Add(2, {1, 2, 3, 9, 9, 9}, 1, true);
  while (Step()) {
  }
  Sequence* third = Add(3, {1, 2, 3, 9, 9, 5, 5}, 1);
  ASSERT_TRUE(scheduler_->Next(&batch_, &sampled_));
  EXPECT_EQ(third->completion.timings.cached_tokens, 5);
  EXPECT_EQ(batch_.ids, (std::vector<int32_t>{5, 5}));
  EXPECT_EQ(batch_.positions, (std::vector<int32_t>{5, 6}));
}

TEST_F(SchedulerTest, APromptThatWasKeptWholeStillComputesItsLastToken) {
  Make(16, 4, 64);
  Add(1, {1, 2, 3, 4}, 2, true);
  while (Step()) {
  }
  Sequence* again = Add(2, {1, 2, 3, 4}, 2);
  ASSERT_TRUE(scheduler_->Next(&batch_, &sampled_));
  EXPECT_EQ(again->completion.timings.cached_tokens, 3);
  EXPECT_EQ(batch_.ids, std::vector<int32_t>{4});
  EXPECT_EQ(sampled_, std::vector<Sequence*>{again});
}

TEST_F(SchedulerTest, WhatIsKeptGivesWayToWhatCanRun) {
  Make(4, 4, 64);
  Add(1, {1, 2, 3}, 1, true);
  Add(2, {4, 5, 6}, 1, true);
  while (Step()) {
  }
  EXPECT_EQ(cache_->free_blocks(), 2);
  Add(3, 50, 14);  // all four blocks
  ASSERT_TRUE(Step());
  while (Step()) {
  }
  EXPECT_EQ(ended_.back(), 3u);
  EXPECT_EQ(cache_->free_blocks(), 4);
}

TEST_F(SchedulerTest, UnderRandomLoadEachEndsOnceWithAllItsTokensComputedInOrder) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 random(seed);
    Make(12 + random() % 20, 1 + random() % 5, 1 + random() % 40);
    ended_.clear();
    const uint64_t total = 40;
    uint64_t added = 0;
    std::map<uint64_t, Sequence*> alive;
    int idle = 0;
    while (ended_.size() < total) {
      if (added < total && random() % 2 == 0) {
        const uint64_t id = ++added;
        std::vector<int32_t> prompt;
        for (size_t i = 1 + random() % 90; i-- > 0;)
          prompt.push_back(static_cast<int32_t>(random() % 2));
        alive[id] =
            Add(id, std::move(prompt), 1 + static_cast<int64_t>(random() % 60), random() % 3 == 0);
      }
      std::map<uint64_t, int64_t> computed;
      for (Sequence* sequence : scheduler_->sequences())
        computed[sequence->id] = sequence->computed;
      if (random() % 10 == 0 && !computed.empty()) {
        const auto victim =
            std::next(computed.begin(), static_cast<ptrdiff_t>(random() % computed.size()));
        alive[victim->first]->completion.finish_reason = FinishReason::kCancelled;
        for (auto& sequence : scheduler_->TakeFinished()) ended_.push_back(sequence->id);
      }
      if (Step()) {
        idle = 0;
        for (Sequence* sequence : scheduler_->sequences()) {
          ASSERT_LE(sequence->computed, sequence->size());
          ASSERT_GE(sequence->computed, computed[sequence->id]);
        }
      } else {
        ASSERT_LT(++idle, 1000) << "nothing runs any more, seed " << seed;
      }
    }
    std::sort(ended_.begin(), ended_.end());
    for (uint64_t id = 1; id <= total; ++id) ASSERT_EQ(ended_[id - 1], id);
  }
}

}  // namespace
}  // namespace sluice
