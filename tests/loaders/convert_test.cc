// The converter when things go wrong: ends in the middle, full disks, two at once.
#include "loaders/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "tests/support/conversion.h"
#include "tests/support/faulty_files.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using testing::Convert;
using testing::FaultyFiles;
using testing::FilesIn;
using ::testing::HasSubstr;

ConvertOptions OptionsWith(FileSystem* files, bool resume = false) {
  ConvertOptions options;
  options.threads = 1;  // so that calls come in the same order in every run
  options.files = files;
  options.resume = resume;
  return options;
}

std::string Undisturbed(const std::string& source = GoldenCheckpoint("gqa")) {
  const ScratchDirectory scratch;
  const Status status = Convert(scratch / "out.sluice", ConvertOptions(), source);
  EXPECT_TRUE(status.ok()) << status.message();
  return ReadTestFile(scratch / "out.sluice");
}

uint64_t CallsOfOneConversion() {
  const ScratchDirectory scratch;
  FaultyFiles files;
  EXPECT_TRUE(Convert(scratch / "out.sluice", OptionsWith(&files)).ok());
  return files.calls();
}

const std::set<std::string> kOnlyTheOutput = {"out.sluice"};

// Resumes, and compares. Only where all was done before is there nothing to resume.
void ExpectResumeGives(const std::string& expected, const ScratchDirectory& scratch) {
  if (FilesIn(scratch) != kOnlyTheOutput) {
    ConvertOptions options = OptionsWith(SystemFiles(), true);
    options.keep_existing = true;
    const Status status = Convert(scratch / "out.sluice", options);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(FilesIn(scratch), kOnlyTheOutput);
  }
  ASSERT_TRUE(ReadTestFile(scratch / "out.sluice") == expected);
}

TEST(Convert, KilledInEveryCallItResumesToTheSameBytes) {
  const std::string expected = Undisturbed();
  const uint64_t calls = CallsOfOneConversion();
  ASSERT_GT(calls, 40u);
  for (uint64_t call = 0; call < calls; ++call) {
    const ScratchDirectory scratch;
    FaultyFiles files;
    files.DieAt(call);
    const Status killed = Convert(scratch / "out.sluice", OptionsWith(&files));
    SCOPED_TRACE(::testing::Message() << "call " << call << ": " << files.log()[call]);
    // Whoever removes the journal has renamed before.
    const bool renamed = fs::exists(scratch / "out.sluice");
    EXPECT_TRUE(renamed || !killed.ok());
    ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
  }
}

TEST(Convert, KilledWhileItResumesItResumesAgain) {
  const std::string expected = Undisturbed();
  const uint64_t calls = CallsOfOneConversion();
  for (uint64_t call = 0; call < calls; call += 3) {
    SCOPED_TRACE(call);
    const ScratchDirectory scratch;
    FaultyFiles first;
    first.DieAt(calls / 2);
    ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&first)).ok());
    FaultyFiles second;
    second.DieAt(call);
    (void)Convert(scratch / "out.sluice", OptionsWith(&second, true));
    ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
  }
}

TEST(Convert, PowerLostInEveryCallItResumesToTheSameBytes) {
  const std::string expected = Undisturbed();
  const uint64_t calls = CallsOfOneConversion();
  for (uint64_t call = 0; call < calls; ++call) {
    for (uint32_t seed = 0; seed < 3; ++seed) {
      const ScratchDirectory scratch;
      FaultyFiles files;
      files.DieAt(call);
      (void)Convert(scratch / "out.sluice", OptionsWith(&files));
      files.LosePower(seed);
      SCOPED_TRACE(::testing::Message()
                   << "call " << call << ": " << files.log()[call] << ", seed " << seed);
      ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
    }
  }
}

TEST(Convert, EveryCallThatFailsIsAnErrorAndResumeGivesTheSameBytes) {
  const std::string expected = Undisturbed();
  const uint64_t calls = CallsOfOneConversion();
  int failed = 0;
  for (const bool for_ever : {false, true}) {
    for (uint64_t call = 0; call < calls; ++call) {
      const ScratchDirectory scratch;
      FaultyFiles files;
      files.FailAt(call, EIO, for_ever);
      const Status status = Convert(scratch / "out.sluice", OptionsWith(&files));
      const std::string what = files.log()[call];
      SCOPED_TRACE(::testing::Message() << "call " << call << ": " << what);
      if (what.starts_with("remove")) {
        // The file is complete by then; all that is left over is a small journal.
        EXPECT_TRUE(status.ok() || for_ever);
      } else {
        EXPECT_EQ(status.code(), ErrorCode::kIo);
        EXPECT_THAT(status.message(), AllOf(HasSubstr(scratch.path()), HasSubstr("Input/output")));
        ++failed;
      }
      ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
    }
  }
  EXPECT_GT(failed, 80);
}

TEST(Convert, ResumeWritesOnlyWhatIsMissing) {
  const uint64_t calls = CallsOfOneConversion();
  const ScratchDirectory scratch;
  FaultyFiles whole, first, second;
  first.DieAt(calls * 3 / 4);
  ASSERT_TRUE(Convert(scratch / "out.sluice", OptionsWith(&whole)).ok());
  fs::remove(scratch / "out.sluice");
  ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&first)).ok());
  ConvertOptions options = OptionsWith(&second, true);
  uint64_t first_done = 0, last_done = 0, total = 0;
  options.progress = [&](const ConvertProgress& progress) {
    if (first_done == 0) first_done = progress.done_bytes;
    last_done = progress.done_bytes;
    total = progress.total_bytes;
    return true;
  };
  ASSERT_TRUE(Convert(scratch / "out.sluice", options).ok());
  const auto writes = [](const FaultyFiles& files) {
    return std::count(files.log().begin(), files.log().end(), "write out.sluice.partial");
  };
  EXPECT_LE(writes(first) + writes(second), writes(whole) + 1);
  EXPECT_GT(first_done, 0u);
  EXPECT_EQ(last_done, total);
}

// Leaves the finished file and its journal.
void KillBeforeTheJournalIsRemoved(const ScratchDirectory& scratch) {
  FaultyFiles probe;
  const ScratchDirectory other;
  ASSERT_TRUE(Convert(other / "out.sluice", OptionsWith(&probe)).ok());
  const auto removal =
      std::find(probe.log().begin(), probe.log().end(), "remove out.sluice.partial.journal");
  ASSERT_NE(removal, probe.log().end());
  FaultyFiles files;
  files.DieAt(static_cast<uint64_t>(removal - probe.log().begin()));
  (void)Convert(scratch / "out.sluice", OptionsWith(&files));
  ASSERT_EQ(FilesIn(scratch), (std::set<std::string>{"out.sluice", "out.sluice.partial.journal"}));
}

TEST(Convert, KilledBetweenRenameAndTheJournalsRemovalResumeSaysThatItWasFinished) {
  const std::string expected = Undisturbed();
  const ScratchDirectory scratch;
  ASSERT_NO_FATAL_FAILURE(KillBeforeTheJournalIsRemoved(scratch));
  FaultyFiles counter;
  ConvertOptions options = OptionsWith(&counter, true);
  options.keep_existing = true;
  const Result<ConvertReport> report =
      ConvertCheckpoint(GoldenCheckpoint("gqa"), scratch / "out.sluice", options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_TRUE(report->was_finished);
  EXPECT_EQ(counter.written_bytes(), 0u);
  EXPECT_EQ(FilesIn(scratch), kOnlyTheOutput);
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == expected);
}

TEST(Convert, AFileThatTheJournalIsNotAboutIsNotTakenForFinished) {
  const ScratchDirectory scratch;
  ASSERT_NO_FATAL_FAILURE(KillBeforeTheJournalIsRemoved(scratch));
  ConvertOptions options = OptionsWith(SystemFiles(), true);
  options.keep_existing = true;
  const std::string whole = ReadTestFile(scratch / "out.sluice");
  const std::string journal = ReadTestFile(scratch / "out.sluice.partial.journal");

  ConvertOptions other = options;
  other.quantization.mode = QuantizationPlan::Mode::kF16;
  EXPECT_EQ(Convert(scratch / "out.sluice", other).code(), ErrorCode::kInvalidArgument);

  for (const size_t at : {size_t{9}, size_t{600}, size_t{4000}}) {  // header, configuration, hashes
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    WriteTestFile(scratch / "out.sluice", damaged);
    EXPECT_EQ(Convert(scratch / "out.sluice", options).code(), ErrorCode::kInvalidArgument) << at;
  }
  WriteTestFile(scratch / "out.sluice", whole.substr(0, whole.size() - 1));
  EXPECT_EQ(Convert(scratch / "out.sluice", options).code(), ErrorCode::kInvalidArgument);

  WriteTestFile(scratch / "out.sluice", whole);
  WriteTestFile(scratch / "out.sluice.partial.journal", journal.substr(0, journal.size() - 1));
  const Status status = Convert(scratch / "out.sluice", options);
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("is there already"));
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == whole);
}

TEST(Convert, ADamagedPieceOfThePartialFileIsMadeAnew) {
  const std::string expected = Undisturbed();
  const ScratchDirectory scratch;
  FaultyFiles files;
  files.DieAt(CallsOfOneConversion() - 8);
  ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&files)).ok());
  std::string partial = ReadTestFile(scratch / "out.sluice.partial");
  ASSERT_EQ(partial.size(), expected.size());
  for (size_t i = 0; i < partial.size(); i += 10'007) partial[i] ^= 0x40;
  WriteTestFile(scratch / "out.sluice.partial", partial);
  ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
}

TEST(Convert, APartialFileOfAnotherLengthOrWithoutJournalResumes) {
  const std::string expected = Undisturbed();
  for (const char* what : {"cut", "longer", "no journal", "cut journal", "no partial"}) {
    SCOPED_TRACE(what);
    const ScratchDirectory scratch;
    FaultyFiles files;
    files.DieAt(CallsOfOneConversion() - 8);
    ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&files)).ok());
    const std::string partial = scratch / "out.sluice.partial";
    const std::string journal = scratch / "out.sluice.partial.journal";
    if (what == std::string("cut")) fs::resize_file(partial, expected.size() / 3);
    if (what == std::string("longer")) fs::resize_file(partial, expected.size() + 1);
    if (what == std::string("no journal")) fs::remove(journal);
    if (what == std::string("cut journal")) fs::resize_file(journal, 100);
    if (what == std::string("no partial")) fs::remove(partial);
    ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
  }
}

TEST(Convert, ResumeOfAnotherConversionIsRefusedAndKeepsIt) {
  const ScratchDirectory scratch;
  const std::string source = scratch / "source";
  fs::copy(GoldenCheckpoint("gqa"), source);
  FaultyFiles files;
  files.DieAt(CallsOfOneConversion() - 8);
  ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&files), source).ok());
  const std::string partial = ReadTestFile(scratch / "out.sluice.partial");
  ConvertOptions other_type = OptionsWith(SystemFiles(), true);
  other_type.quantization.mode = QuantizationPlan::Mode::kInt8;
  EXPECT_EQ(Convert(scratch / "out.sluice", other_type, source).code(),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(
      Convert(scratch / "out.sluice", OptionsWith(SystemFiles(), true), GoldenCheckpoint("mha"))
          .code(),
      ErrorCode::kInvalidArgument);
  // The same bytes at another time may be others.
  fs::last_write_time(source + "/model.safetensors",
                      fs::last_write_time(source + "/model.safetensors") - std::chrono::hours(1));
  const Status changed = Convert(scratch / "out.sluice", OptionsWith(SystemFiles(), true), source);
  EXPECT_EQ(changed.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(changed.message(), HasSubstr("without --resume"));
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice.partial") == partial);
  // Anew it goes.
  EXPECT_TRUE(Convert(scratch / "out.sluice", OptionsWith(SystemFiles()), source).ok());
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == Undisturbed(source));
}

TEST(Convert, ADiskThatFillsAtAnyPointIsAnErrorWithBothNumbersAndResumeGoesOn) {
  const std::string expected = Undisturbed();
  const ScratchDirectory whole_scratch;
  FaultyFiles whole;
  ASSERT_TRUE(Convert(whole_scratch / "out.sluice", OptionsWith(&whole)).ok());
  for (uint64_t tenth = 0; tenth < 10; ++tenth) {
    SCOPED_TRACE(tenth);
    const ScratchDirectory scratch;
    FaultyFiles files;
    files.LimitSpace(whole.written_bytes() * (2 * tenth + 1) / 20);
    const Status full = Convert(scratch / "out.sluice", OptionsWith(&files));
    EXPECT_EQ(full.code(), ErrorCode::kIo);
    EXPECT_THAT(full.message(),
                AllOf(HasSubstr("No space left on device"), HasSubstr("bytes are free")));
    EXPECT_FALSE(fs::exists(scratch / "out.sluice"));
    // Still full.
    FaultyFiles again;
    again.LimitSpace(100);
    EXPECT_EQ(Convert(scratch / "out.sluice", OptionsWith(&again, true)).code(), ErrorCode::kIo);
    ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
  }
}

TEST(Convert, ADiskThatIsTooSmallIsRefusedBeforeAnyWrite) {
  const ScratchDirectory scratch;
  FaultyFiles files;
  files.SayFree(12'345);
  const Status status = Convert(scratch / "out.sluice", OptionsWith(&files));
  EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit);
  const uint64_t size = Undisturbed().size();
  EXPECT_THAT(status.message(), AllOf(HasSubstr("12345 are free"),
                                      HasSubstr("needs " + std::to_string(size).substr(0, 2))));
  EXPECT_EQ(files.written_bytes(), 0u);
  EXPECT_TRUE(FilesIn(scratch).empty());
}

TEST(Convert, TheSpaceThatAPartialFileHoldsCounts) {
  const ScratchDirectory scratch;
  FaultyFiles killed, rest;
  killed.DieAt(CallsOfOneConversion() - 8);
  ASSERT_FALSE(Convert(scratch / "out.sluice", OptionsWith(&killed)).ok());
  rest.SayFree(8'192);
  const Status status = Convert(scratch / "out.sluice", OptionsWith(&rest, true));
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST(Convert, TwoOfOneOutputDoNotCollide) {
  const std::string expected = Undisturbed();
  const ScratchDirectory scratch;
  ConvertOptions options = OptionsWith(SystemFiles());
  int tried = 0;
  options.progress = [&](const ConvertProgress&) {
    if (tried++ > 0) return true;
    for (const bool resume : {false, true}) {
      const Status second = Convert(scratch / "out.sluice", OptionsWith(SystemFiles(), resume));
      EXPECT_EQ(second.code(), ErrorCode::kIo);
      EXPECT_THAT(second.message(), HasSubstr("another process"));
    }
    return true;
  };
  const Status status = Convert(scratch / "out.sluice", options);
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_GT(tried, 1);
  EXPECT_EQ(FilesIn(scratch), kOnlyTheOutput);
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == expected);
}

TEST(Convert, CancelledAtAnyPointItResumesToTheSameBytes) {
  const std::string expected = Undisturbed();
  for (const int wanted : {1, 2, 7, 20}) {
    SCOPED_TRACE(wanted);
    const ScratchDirectory scratch;
    ConvertOptions options = OptionsWith(SystemFiles());
    int calls = 0;
    options.progress = [&](const ConvertProgress&) { return ++calls < wanted; };
    const Status cancelled = Convert(scratch / "out.sluice", options);
    EXPECT_EQ(cancelled.code(), ErrorCode::kCancelled);
    EXPECT_THAT(cancelled.message(), HasSubstr("--resume"));
    EXPECT_FALSE(fs::exists(scratch / "out.sluice"));
    ASSERT_NO_FATAL_FAILURE(ExpectResumeGives(expected, scratch));
  }
}

TEST(Convert, WithoutResumeItBeginsAnew) {
  const std::string expected = Undisturbed();
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "out.sluice.partial", std::string(5'000'000, 'x'));
  WriteTestFile(scratch / "out.sluice.partial.journal", std::string(100, 'y'));
  ASSERT_TRUE(Convert(scratch / "out.sluice", OptionsWith(SystemFiles())).ok());
  EXPECT_EQ(FilesIn(scratch), kOnlyTheOutput);
  EXPECT_TRUE(ReadTestFile(scratch / "out.sluice") == expected);
}

}  // namespace
}  // namespace sluice
