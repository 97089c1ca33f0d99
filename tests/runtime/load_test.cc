// Whether a measurement was disturbed, from figures of clocks.
#include "runtime/load.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>
#include <vector>

#include "formats/status.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Of one second on four processors, of which two threads compute.
Load After(double own_s, double busy_s, double stolen_s = 0) {
  const LoadReading before = {100, 7, 5000, 30};
  return LoadBetween(before, {101, 7 + own_s, 5000 + busy_s, 30 + stolen_s}, 2, 4);
}

TEST(Load, AThreadThatGetsAllItsTimeOnAMachineAtRestIsQuiet) {
  const Load load = After(2, 2);
  EXPECT_EQ(load.missing, 0);
  EXPECT_EQ(load.others, 0);
  EXPECT_FALSE(IsBusy(load));
  EXPECT_FALSE(IsBusy(After(1.9, 2.0))) << "waiting for each other, and a little of a desktop";
}

TEST(Load, ProcessorTimeThatOthersTookIsMissing) {
  const Load load = After(1.5, 4);
  EXPECT_DOUBLE_EQ(load.missing, 0.25);
  EXPECT_DOUBLE_EQ(load.others, 2.5 / 4);
  EXPECT_TRUE(IsBusy(load));
  EXPECT_TRUE(IsBusy({0.25, 0}));
}

TEST(Load, OthersOnTheProcessorsThatAreLeftUseTheSameMemory) {
  const Load load = After(2, 3);
  EXPECT_EQ(load.missing, 0);
  EXPECT_DOUBLE_EQ(load.others, 0.25);
  EXPECT_TRUE(IsBusy(load));
}

TEST(Load, WhatAHostTakesCounts) {
  EXPECT_NEAR(After(2, 2, 0.8).others, 0.2, 1e-12);
  EXPECT_TRUE(IsBusy(After(2, 2, 0.8)));
}

TEST(Load, ThreadsThatWaitByNatureMissNothing) {
  const Load load = LoadBetween({0, 0, 0, 0}, {1, 0.01, 0.02, 0}, 0, 4);
  EXPECT_EQ(load.missing, 0);
  EXPECT_FALSE(IsBusy(load));
}

TEST(Load, WhatASystemDoesNotTellIsNotHeldAgainstIt) {
  const Load load = LoadBetween({5, 1, 0, 0}, {6, 3, 0, 0}, 2, 4);
  EXPECT_EQ(load.others, 0);
  EXPECT_FALSE(IsBusy(load));
  EXPECT_FALSE(IsBusy(LoadBetween({5, 1, 2, 3}, {5, 1, 2, 3}, 2, 4))) << "no time went by";
}

TEST(Load, IsReadFromTheKernelsTable) {
  const ScratchDirectory scratch;
  std::filesystem::create_directories(scratch / "proc");
  scratch.Write("proc/stat", "cpu  100 20 30 4000 500 6 7 80 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n");
  const LoadReading reading = ReadLoad(scratch / "");
  const auto per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  EXPECT_DOUBLE_EQ(reading.busy_s, 163 / per_second);
  EXPECT_DOUBLE_EQ(reading.stolen_s, 80 / per_second);
  EXPECT_GT(reading.own_s, 0);
  for (const char* text : {"", "cpu  1 2", "cpu  1 2 3 4 5 6 7 x\n", "intr 1 2 3 4 5 6 7 8\n"}) {
    scratch.Write("proc/stat", text);
    EXPECT_EQ(ReadLoad(scratch / "").busy_s, 0) << text;
  }
  EXPECT_EQ(ReadLoad(scratch / "none").busy_s, 0);
}

struct Trial {
  double speed = 0;
  Load load = {};
};
constexpr Load kQuiet = {0, 0};
constexpr Load kBusy = {0.5, 0.5};

// Hands out trials in turn.
class Trials {
 public:
  explicit Trials(std::vector<Trial> trials) : trials_(std::move(trials)) {}
  Trial InQuiet(int* repeats_left) {
    const Result<Trial> result =
        MeasureInQuiet([this] { return Result<Trial>(trials_.at(taken_++)); },
                       [](const Trial& trial) { return trial.speed; }, IsBusy, repeats_left);
    return *result;
  }
  size_t taken() const { return taken_; }

 private:
  std::vector<Trial> trials_;
  size_t taken_ = 0;
};

TEST(MeasureInQuiet, OneTrialIsEnoughInQuiet) {
  Trials trials({{5, kQuiet}});
  int repeats_left = 3;
  EXPECT_EQ(trials.InQuiet(&repeats_left).speed, 5);
  EXPECT_EQ(repeats_left, 3);
}

TEST(MeasureInQuiet, TheFirstQuietTrialCountsThoughItIsSlower) {
  Trials trials({{3, kBusy}, {6, kBusy}, {5, kQuiet}});
  int repeats_left = 8;
  EXPECT_EQ(trials.InQuiet(&repeats_left).speed, 5);
  EXPECT_EQ(repeats_left, 6);
}

TEST(MeasureInQuiet, WithoutQuietTheFastestCountsAndIsKnownToBeBusy) {
  Trials trials({{3, kBusy}, {6, kBusy}, {5, kBusy}, {kNaN, kBusy}});
  int repeats_left = 3;
  const Trial trial = trials.InQuiet(&repeats_left);
  EXPECT_EQ(trial.speed, 6);
  EXPECT_TRUE(IsBusy(trial.load));
  EXPECT_EQ(trials.taken(), 4u);
  EXPECT_EQ(repeats_left, 0);
}

TEST(MeasureInQuiet, ThePatienceIsSharedByAllThatIsMeasured) {
  Trials trials({{3, kBusy}, {4, kBusy}, {9, kBusy}});
  int repeats_left = 1;
  EXPECT_EQ(trials.InQuiet(&repeats_left).speed, 4);
  EXPECT_EQ(trials.InQuiet(&repeats_left).speed, 9);
  EXPECT_EQ(trials.taken(), 3u);
}

TEST(MeasureInQuiet, AnErrorIsAnAnswer) {
  int repeats_left = 3;
  const Result<Trial> result =
      MeasureInQuiet([] { return Result<Trial>(Status(ErrorCode::kOutOfMemory, "none")); },
                     [](const Trial& trial) { return trial.speed; }, IsBusy, &repeats_left);
  EXPECT_EQ(result.status().code(), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace sluice
