#include "runtime/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "offload/processors.h"

namespace sluice {
namespace {

// Plain counters: the thread sanitizer sees whether the end of For orders what bodies wrote.
void ExpectEachItemOnce(ThreadTeam& team, int64_t items, int64_t grain) {
  std::vector<int> visits(static_cast<size_t>(items));
  std::atomic<int> wrong_ranges = 0;
  team.For(items, grain, [&](int64_t begin, int64_t end) {
    if (begin >= end) ++wrong_ranges;
    for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
  });
  EXPECT_EQ(wrong_ranges, 0);
  for (int count : visits) ASSERT_EQ(count, 1) << items << " items by " << grain;
}

TEST(ThreadTeam, EveryItemOnceForAllSizesAndTeams) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadTeam team(threads);
    EXPECT_EQ(team.threads(), threads);
    for (int64_t items : {1, 2, 3, 7, 16, 17, 100, 1009}) {
      for (int64_t grain : {1, 2, 5, 16, 1009, 5000}) {
        ASSERT_NO_FATAL_FAILURE(ExpectEachItemOnce(team, items, grain));
      }
    }
  }
}

TEST(ThreadTeam, RangesHaveAsManyItemsAsWasAskedForInATeamOfOneToo) {
  for (int threads : {1, 2, 3}) {
    ThreadTeam team(threads);
    std::mutex mutex;
    std::set<std::pair<int64_t, int64_t>> ranges;
    team.For(11, 4, [&](int64_t begin, int64_t end) {
      const std::lock_guard lock(mutex);
      ranges.insert({begin, end});
    });
    EXPECT_EQ(ranges, (std::set<std::pair<int64_t, int64_t>>{{0, 4}, {4, 8}, {8, 11}})) << threads;
  }
}

TEST(ThreadTeam, NothingToDoCallsNobody) {
  ThreadTeam team(2);
  team.For(0, 1, [](int64_t, int64_t) { ADD_FAILURE(); });
}

TEST(ThreadTeam, WorkersComeBackAfterTheySlept) {
  ThreadTeam team(4);
  for (int pause_us : {0, 10, 45, 55, 60, 2000}) {
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
      ASSERT_NO_FATAL_FAILURE(ExpectEachItemOnce(team, 64, 1));
    }
  }
}

TEST(ThreadTeam, ManyShortOperationsInARow) {
  std::mt19937 random(3);
  ThreadTeam team(3);
  int64_t sum = 0;
  int64_t expected = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto items = static_cast<int64_t>(random() % 9);
    std::atomic<int64_t> visited = 0;
    team.For(items, 1, [&](int64_t begin, int64_t end) { visited += end - begin; });
    sum += visited;
    expected += items;
  }
  EXPECT_EQ(sum, expected);
}

// Two threads that meet inside one operation can only be two.
TEST(ThreadTeam, RangesRunAtTheSameTime) {
  ThreadTeam team(2);
  std::atomic<int> inside = 0;
  std::atomic<bool> met = false;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  team.For(2, 1, [&](int64_t, int64_t) {
    ++inside;
    while (inside < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    met = inside == 2;
  });
  EXPECT_TRUE(met);
}

// Processors of the thread that runs each of `threads` ranges, all at the same time.
std::map<std::thread::id, std::vector<int>> ProcessorsOf(ThreadTeam& team) {
  std::mutex mutex;
  std::map<std::thread::id, std::vector<int>> found;
  std::atomic<int> inside = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  team.For(team.threads(), 1, [&](int64_t, int64_t) {
    ++inside;
    while (inside < team.threads() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    const std::lock_guard lock(mutex);
    found[std::this_thread::get_id()] = AllowedProcessors();
  });
  return found;
}

TEST(ThreadTeam, WorkersOfATeamOnAllCoresHaveACoreEachAndTheCallerKeepsItsOwn) {
  const std::vector<int> all = AllowedProcessors();
  const size_t cores = CoresOf(all).size();
  if (cores < 2 || static_cast<size_t>(UsableCores()) != cores)
    GTEST_SKIP() << "one core, or a quota";
  ThreadTeam team(static_cast<int>(cores));
  auto found = ProcessorsOf(team);
  ASSERT_EQ(found.size(), cores);
  EXPECT_EQ(found[std::this_thread::get_id()], all);
  found.erase(std::this_thread::get_id());
  std::set<std::vector<int>> different;
  for (const auto& [thread, processors] : found) {
    EXPECT_EQ(CoresOf(processors).size(), 1u);
    different.insert(processors);
  }
  EXPECT_EQ(different.size(), cores - 1);
}

TEST(ThreadTeam, WorkersOfOtherTeamsMayRunAnywhere) {
  const std::vector<int> all = AllowedProcessors();
  ThreadTeam team(static_cast<int>(all.size()) + 1);
  for (const auto& [thread, processors] : ProcessorsOf(team)) EXPECT_EQ(processors, all);
}

TEST(ThreadTeam, TeamsThatNeverWorkedEnd) {
  for (int i = 0; i < 100; ++i) ThreadTeam team(1 + i % 5);
}

TEST(ThreadTeam, TwoTeamsBesideEachOther) {
  std::thread other([] {
    ThreadTeam team(2);
    for (int i = 0; i < 500; ++i) ExpectEachItemOnce(team, 10, 3);
  });
  ThreadTeam team(2);
  for (int i = 0; i < 500; ++i) ExpectEachItemOnce(team, 10, 3);
  other.join();
}

}  // namespace
}  // namespace sluice
