// The ring's state machine: every order of events that a reader and a pass can produce.
#include "offload/slot_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace sluice {
namespace {

using State = SlotPool::State;

// Groups 0, 1, ... of the given numbers of pieces, all of one size; piece ids count from 100.
std::vector<StreamedPiece> Cycle(const std::vector<int>& pieces_of_group, uint32_t size_bytes) {
  std::vector<StreamedPiece> cycle;
  for (size_t group = 0; group < pieces_of_group.size(); ++group) {
    for (int i = 0; i < pieces_of_group[group]; ++i) {
      cycle.push_back(
          {static_cast<PieceId>(100 + cycle.size()), static_cast<GroupId>(group), size_bytes});
    }
  }
  return cycle;
}

std::vector<PieceId> ReadAll(SlotPool* pool) {
  std::vector<PieceId> reads;
  while (const auto read = pool->NextRead()) {
    reads.push_back(read->piece);
    pool->Arrived(read->piece, true);
  }
  return reads;
}

TEST(SlotPool, ReadsInTheOrderOfUseUntilTheRingIsFull) {
  SlotPool pool(35, Cycle({2, 2, 2}, 10));
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{100, 101, 102}));
  EXPECT_EQ(pool.used_bytes(), 30u);
  EXPECT_EQ(pool.Find(103).state, State::kAbsent);
}

TEST(SlotPool, ReadingGoesRoundTheEndOfThePassIntoTheNext) {
  SlotPool pool(40, Cycle({2, 3}, 10));
  ReadAll(&pool);
  pool.Acquire(0);
  for (PieceId piece : {100u, 101u}) {
    pool.Take(piece);
    pool.Done(piece);
  }
  pool.Release(0);
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{104, 100}));
}

TEST(SlotPool, AGroupLargerThanTheRingPassesThroughIt) {
  SlotPool pool(25, Cycle({7}, 10));
  pool.Acquire(0);
  for (PieceId piece = 100; piece < 107; ++piece) {
    ReadAll(&pool);
    ASSERT_EQ(pool.Find(piece).state, State::kReady);
    pool.Take(piece);
    pool.Done(piece);
  }
}

TEST(SlotPool, APieceThatIsTakenKeepsItsMemory) {
  SlotPool pool(30, Cycle({3, 3}, 10));
  ReadAll(&pool);
  pool.Acquire(0);
  pool.Take(100);
  pool.Take(101);
  pool.Done(101);
  EXPECT_TRUE(ReadAll(&pool).empty());  // 101's memory lies behind 100's
  pool.Done(100);
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{103, 104}));
}

TEST(SlotPool, WhatAPassLeavesOutIsDropped) {
  SlotPool pool(40, Cycle({2, 1, 2}, 10));
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{100, 101, 102, 103}));
  pool.Acquire(2);  // groups 0 and 1 are not wanted
  EXPECT_EQ(pool.dropped_bytes(), 30u);
  EXPECT_EQ(pool.Find(103).state, State::kReady);
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{104, 100, 101}));
}

TEST(SlotPool, AGroupThatWasPassedOverIsReadAtOnceWhenItIsWanted) {
  SlotPool pool(30, Cycle({2, 2, 2}, 10));
  pool.SetSkipped(1, true);
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{100, 101, 104}));
  pool.SetSkipped(1, false);
  pool.Acquire(1);
  EXPECT_EQ(ReadAll(&pool), (std::vector<PieceId>{102, 103, 104}));
}

TEST(SlotPool, APieceThatIsDroppedWhileItIsReadHoldsItsMemoryUntilItArrives) {
  SlotPool pool(20, Cycle({1, 1, 1, 1}, 10));
  ASSERT_EQ(pool.NextRead()->piece, 100u);
  ASSERT_EQ(pool.NextRead()->piece, 101u);
  pool.Acquire(2);
  EXPECT_FALSE(pool.NextRead().has_value());
  EXPECT_FALSE(pool.Arrived(100, true));
  EXPECT_EQ(pool.NextRead()->piece, 102u);
  EXPECT_FALSE(pool.Arrived(101, true));
}

TEST(SlotPool, APieceThatIsWantedAgainBeforeItsMemoryIsUsedNeedsNoSecondRead) {
  SlotPool pool(20, Cycle({1, 1, 1, 1}, 10));
  ASSERT_EQ(pool.NextRead()->piece, 100u);
  ASSERT_EQ(pool.NextRead()->piece, 101u);
  pool.Acquire(2);
  pool.Acquire(0);
  EXPECT_EQ(pool.Find(100).state, State::kReading);
  EXPECT_TRUE(pool.Arrived(100, true));
  EXPECT_EQ(pool.Find(100).state, State::kReady);
}

TEST(SlotPool, AFailedReadIsToldUntilTheGroupIsReleasedAndTriedInTheNextPass) {
  SlotPool pool(20, Cycle({2}, 10));
  pool.Acquire(0);
  ASSERT_EQ(pool.NextRead()->piece, 100u);
  ASSERT_EQ(pool.NextRead()->piece, 101u);
  pool.Arrived(101, false);
  pool.Arrived(100, true);
  pool.Take(100);
  pool.Demand(101);
  EXPECT_EQ(pool.Find(101).state, State::kFailed);
  pool.Release(0);
  EXPECT_EQ(pool.Find(101).state, State::kAbsent);
  pool.Acquire(0);
  EXPECT_EQ(ReadAll(&pool).size(), 2u);
  EXPECT_EQ(pool.Find(101).state, State::kReady);
}

TEST(SlotPool, ADamagedPieceIsReadAnewInTheNextPassEvenIfItsMemoryIsStillThere) {
  SlotPool pool(20, Cycle({1, 1}, 10));
  ReadAll(&pool);
  pool.Acquire(0);
  pool.Take(100);
  pool.Fail(100);
  EXPECT_EQ(pool.Find(100).state, State::kFailed);
  pool.Release(0);
  pool.Acquire(0);
  EXPECT_EQ(ReadAll(&pool).front(), 100u);
}

TEST(SlotPool, PiecesInAnotherOrderThanThatOfTheFileAreServed) {
  SlotPool pool(30, Cycle({6}, 10));
  pool.Acquire(0);
  for (PieceId piece : {105u, 100u, 103u, 101u, 104u, 102u}) {
    ReadAll(&pool);
    pool.Demand(piece);
    ReadAll(&pool);
    ASSERT_EQ(pool.Find(piece).state, State::kReady) << piece;
    pool.Take(piece);
    pool.Done(piece);
  }
}

// A reader and a pass in random interleaving.
class Interleaving {
 public:
  explicit Interleaving(uint32_t seed) : random_(seed) {
    std::vector<StreamedPiece> cycle;
    pieces_of_.resize(1 + random_() % 6);
    for (size_t group = 0; group < pieces_of_.size(); ++group) {
      for (size_t n = 1 + random_() % 5; n-- > 0;) {
        sizes_.push_back(static_cast<uint32_t>(1 + random_() % 20));
        cycle.push_back(
            {static_cast<PieceId>(cycle.size()), static_cast<GroupId>(group), sizes_.back()});
        pieces_of_[group].push_back(cycle.back().piece);
      }
    }
    const uint32_t largest = *std::max_element(sizes_.begin(), sizes_.end());
    ring_bytes_ = largest + random_() % 80;
    // One piece in use may lie anywhere: what is left must hold another in one part.
    may_hold_two_ = ring_bytes_ >= 3 * uint64_t{largest};
    pool_.emplace(ring_bytes_, std::move(cycle));
  }

  void Pass() {
    for (size_t group = 0; group < pieces_of_.size(); ++group) {
      if (random_() % 8 == 0) continue;  // passes leave groups out
      pool_->Acquire(static_cast<GroupId>(group));
      std::optional<PieceId> held;
      for (PieceId piece : pieces_of_[group]) {
        for (size_t n = random_() % 4; n-- > 0;) {
          if (random_() % 2 == 0) {
            StartRead();
          } else {
            Arrive();
          }
        }
        for (int steps = 0; pool_->Find(piece).state != State::kReady; ++steps) {
          ASSERT_LT(steps, 200) << "piece " << piece << " never comes";
          pool_->Demand(piece);
          if (!StartRead()) Arrive();
        }
        pool_->Take(piece);
        busy_[piece] = pool_->Find(piece).ring_offset_bytes;
        if (held) GiveBack(*held);
        held = piece;
        if (!may_hold_two_) GiveBack(*std::exchange(held, std::nullopt));
      }
      pool_->Release(static_cast<GroupId>(group));
      if (held) busy_.erase(*held);
    }
  }

 private:
  bool StartRead() {
    const auto read = pool_->NextRead();
    if (!read) return false;
    EXPECT_LE(read->ring_offset_bytes + read->size_bytes, ring_bytes_);
    for (const auto& [other, begin] : busy_) {
      EXPECT_TRUE(read->ring_offset_bytes + read->size_bytes <= begin ||
                  begin + sizes_[other] <= read->ring_offset_bytes)
          << "piece " << read->piece << " lies over " << other;
    }
    EXPECT_EQ(busy_.count(read->piece), 0u);
    busy_[read->piece] = read->ring_offset_bytes;
    reading_.push_back(read->piece);
    return true;
  }

  void Arrive() {
    if (reading_.empty()) return;
    const auto which = reading_.begin() + static_cast<ptrdiff_t>(random_() % reading_.size());
    busy_.erase(*which);
    pool_->Arrived(*which, true);
    reading_.erase(which);
  }

  void GiveBack(PieceId piece) {
    pool_->Done(piece);
    busy_.erase(piece);
  }

  std::mt19937 random_;
  std::vector<std::vector<PieceId>> pieces_of_;
  std::vector<uint32_t> sizes_;
  uint64_t ring_bytes_ = 0;
  bool may_hold_two_ = false;
  std::optional<SlotPool> pool_;
  std::map<PieceId, uint64_t> busy_;  // memory that is read into, or in use
  std::vector<PieceId> reading_;
};

TEST(SlotPool, RandomInterleavingsServeEveryPassAndNeverShareMemory) {
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    Interleaving run(seed);
    for (int pass = 0; pass < 6; ++pass) run.Pass();
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sluice
