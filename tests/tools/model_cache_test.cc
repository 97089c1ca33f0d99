// Conversions that are made on the way, and kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>

#include "tests/support/program.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ModelCache, TwoAtOnceFromAnUnconvertedModelConvertItOnce) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::vector<std::string> words = {
      "run", GoldenCheckpoint("mha"), "-p", "x", "-n", "8", "--temp", "0"};
  auto other = std::async(std::launch::async, [&] { return RunSluice(words, cache); });
  const ProgramResult first = RunSluice(words, cache);
  const ProgramResult second = other.get();
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(first.out, second.out);
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "cache/models")) {
    EXPECT_NE(entry.path().extension(), ".partial");
    models += entry.path().extension() == ".sluice";
  }
  EXPECT_EQ(models, 1);
  EXPECT_THAT(RunSluice(words, cache).err, Not(HasSubstr("converting")));
}

TEST(ModelCache, DamagedConversionInTheCacheIsMadeAnew) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::vector<std::string> words = {"run", GoldenCheckpoint("mha"), "-p", "x", "-n", "1"};
  ASSERT_EQ(RunSluice(words, cache).exit_code, 0);
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "cache/models")) {
    if (entry.path().extension() == ".sluice") std::filesystem::resize_file(entry.path(), 1000);
  }
  const ProgramResult result = RunSluice(words, cache);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("converting"));
}

TEST(ModelCache, CopyOfACheckpointIsNotConvertedAgainButAChangedOneIs) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::string copy = scratch / "copy";
  std::filesystem::copy(GoldenCheckpoint("mha"), copy);
  const auto converts = [&cache](const std::string& model) {
    const ProgramResult result = RunSluice({"run", model, "-p", "x", "-n", "1"}, cache);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.err.find("converting") != std::string::npos;
  };
  EXPECT_TRUE(converts(GoldenCheckpoint("mha")));
  EXPECT_FALSE(converts(copy));
  WriteTestFile(copy + "/picture.png", "no part of the model");
  EXPECT_FALSE(converts(copy));
  // One bit of a weight; size and time stay.
  const std::string weights = copy + "/model.safetensors";
  const auto time = std::filesystem::last_write_time(weights);
  std::string bytes = ReadTestFile(weights);
  bytes[bytes.size() - 8] ^= 1;
  const std::string other = scratch / "other";
  std::filesystem::rename(copy, other);
  WriteTestFile(other + "/model.safetensors", bytes);
  std::filesystem::last_write_time(other + "/model.safetensors", time);
  EXPECT_TRUE(converts(other));
}

}  // namespace
}  // namespace sluice
