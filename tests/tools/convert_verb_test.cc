// `sluice convert` and `synth` as programs: limits, options, what a failure leaves.
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

TEST(ConvertVerb, DoesNotReplaceWithoutForce) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "out.sluice", "precious");
  const std::vector<std::string> words = {"convert", GoldenCheckpoint("gqa"), "-o",
                                          scratch / "out.sluice"};
  ExpectFailure(RunSluice(words), 2, "invalid argument");
  EXPECT_EQ(ReadTestFile(scratch / "out.sluice"), "precious");
  std::vector<std::string> force = words;
  force.push_back("--force");
  EXPECT_EQ(RunSluice(force).exit_code, 0);
  EXPECT_EQ(RunSluice({"verify", scratch / "out.sluice"}).exit_code, 0);
}

TEST(ConvertVerb, FailureLeavesNothing) {
  const ScratchDirectory scratch;
  const std::string gguf =
      ReadTestFile(std::string(SLUICE_TEST_DATA_DIR) + "/golden/gguf/q4_1.gguf");
  WriteTestFile(scratch / "cut.gguf", gguf.substr(0, gguf.size() - 100));
  ExpectFailure(RunSluice({"convert", scratch / "cut.gguf", "-o", scratch / "out.sluice"}), 1,
                "truncated");
  ExpectFailure(RunSluice({"convert", GoldenCheckpoint("gqa"), "-o", scratch / "no/out.sluice"}), 1,
                "I/O error");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(scratch.path()))
    ++files;
  EXPECT_EQ(files, 1);
}

TEST(Synth, UnknownShapeNamesTheKnownOnes) {
  const ScratchDirectory scratch;
  const ProgramResult result =
      RunSluice({"synth", "--shape", "cube", "-o", scratch / "out.sluice"});
  ExpectFailure(result, 2, "invalid argument");
  EXPECT_THAT(result.err, HasSubstr("smollm2-135m"));
}

}  // namespace
}  // namespace sluice
