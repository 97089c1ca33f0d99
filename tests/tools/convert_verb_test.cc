// `sluice convert` as a program: signals, limits, options.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>

#include "tests/support/program.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<std::string> ConvertWords(const ScratchDirectory& scratch, bool resume = false) {
  std::vector<std::string> words = {"convert", GoldenCheckpoint("gqa"), "-o",
                                    scratch / "out.sluice"};
  if (resume) words.push_back("--resume");
  return words;
}

std::string Undisturbed() {
  const ScratchDirectory scratch;
  EXPECT_EQ(RunSluice(ConvertWords(scratch)).exit_code, 0);
  return ReadTestFile(scratch / "out.sluice");
}

// The largest file that this process and its children may write, while it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_;
};

TEST(ConvertVerb, AFileSizeLimitIsAnErrorAndResumeGoesOn) {
  const ScratchDirectory scratch;
  {
    const FileSizeLimit limit(20'000);
    const ProgramResult result = RunSluice(ConvertWords(scratch));
    EXPECT_EQ(result.exit_code, 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr("sluice: I/O error: "));
    EXPECT_THAT(result.err, HasSubstr("File too large"));
    EXPECT_FALSE(fs::exists(scratch / "out.sluice"));
  }
  const ProgramResult resumed = RunSluice(ConvertWords(scratch, true));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == Undisturbed());
}

TEST(ConvertVerb, ResumeWithoutAnythingToResumeConverts) {
  const ScratchDirectory scratch;
  const ProgramResult result = RunSluice(ConvertWords(scratch, true));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == Undisturbed());
  // What is complete stays.
  EXPECT_EQ(RunSluice(ConvertWords(scratch, true)).exit_code, 2);
}

}  // namespace
}  // namespace sluice
