// Whole ranges over reads that come back short, late, wrong, or not at all.
#include "offload/async_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <random>

#include "offload/host_arena.h"
#include "tests/support/faulty_storage.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using testing::Fault;
using ::testing::HasSubstr;

constexpr uint32_t kChunk = 16384;

class AsyncReaderTest : public ::testing::Test {
 protected:
  void Make(uint64_t file_bytes) {
    std::mt19937 random(5);
    content_.resize(file_bytes);
    for (char& byte : content_) byte = static_cast<char>(random());
    path_ = scratch_.Write("file", content_);
    buffer_.emplace(*HostArena::Allocate((file_bytes + 8191) / 4096 * 4096));
  }

  // Reads the whole file as ranges of 40 KiB; the status of each.
  std::vector<Status> ReadAll(const Fault& fault) {
    std::unique_ptr<Storage> storage = *testing::OpenFaultyStorage(path_, fault);
    AsyncReader reader(storage.get(), path_, content_.size(), kChunk);
    constexpr uint64_t kRange = 40960;
    const uint64_t padded =
        (content_.size() + fault.alignment - 1) / fault.alignment * fault.alignment;
    std::vector<Status> statuses;
    for (uint64_t begin = 0; begin < padded; begin += kRange) {
      reader.Read(begin, buffer_->bytes().subspan(begin, std::min(kRange, padded - begin)),
                  statuses.size());
      statuses.emplace_back(ErrorCode::kInternal, "never finished");
    }
    std::vector<AsyncReader::Finished> finished;
    while (reader.pending() > 0) reader.Wait(&finished);
    EXPECT_EQ(finished.size(), statuses.size());
    for (const AsyncReader::Finished& end : finished) statuses[end.tag] = end.status;
    return statuses;
  }

  void ExpectContent() {
    EXPECT_EQ(std::memcmp(buffer_->bytes().data(), content_.data(), content_.size()), 0);
  }
  static void ExpectAllOk(const std::vector<Status>& statuses) {
    for (const Status& status : statuses) EXPECT_TRUE(status.ok()) << status.message();
  }

  ScratchDirectory scratch_;
  std::string path_;
  std::string content_;
  std::optional<HostArena> buffer_;
};

TEST_F(AsyncReaderTest, FilesOfAllTails) {
  for (uint64_t size : {4096u, 4097u, 8191u, 40960u, 40961u, 100'000u, 163'840u, 200'001u}) {
    Make(size);
    for (uint32_t seed = 0; seed < 5; ++seed) {
      ExpectAllOk(ReadAll({.hook = nullptr, .seed = seed}));
      ExpectContent();
    }
  }
}

TEST_F(AsyncReaderTest, ShortReadsOfEveryLengthGoOnWhereTheyEnded) {
  Make(100'000);
  for (int64_t length : {1, 511, 512, 4095, 4096, 4097, 8192, 12287, 16383}) {
    std::map<uint64_t, int> reads_at;
    ExpectAllOk(ReadAll({.hook = [&](uint64_t, const StorageRead& read, int64_t* result) {
      // The second read of the same place is whole: less than an aligned unit must not repeat for
      // ever.
      if (++reads_at[read.offset_bytes] > 1 || *result <= length) return;
      std::memset(read.buffer + length, 0x77, static_cast<size_t>(*result - length));
      *result = length;
    }}));
    ExpectContent();
  }
}

TEST_F(AsyncReaderTest, WithoutAlignmentAByteAtATimeStillArrives) {
  Make(3000);
  ExpectAllOk(ReadAll({.hook = [](uint64_t, const StorageRead&,
                                  int64_t* result) { *result = std::min<int64_t>(*result, 1); },
                       .alignment = 1}));
  ExpectContent();
}

TEST_F(AsyncReaderTest, InterruptsAndDelaysAreContinued) {
  Make(100'000);
  ExpectAllOk(ReadAll({.hook = [](uint64_t number, const StorageRead&, int64_t* result) {
    if (number % 3 != 2) *result = number % 2 == 0 ? -EINTR : -EAGAIN;
  }}));
  ExpectContent();
}

TEST_F(AsyncReaderTest, AnErrorThatPassesIsTriedAgain) {
  Make(100'000);
  std::map<uint64_t, int> failures;
  ExpectAllOk(ReadAll({.hook = [&](uint64_t, const StorageRead& read, int64_t* result) {
    if (failures[read.offset_bytes]++ < 2) *result = -EIO;
  }}));
  ExpectContent();
}

TEST_F(AsyncReaderTest, AnErrorThatStaysIsToldWithPathOffsetAndCauseAndHitsItsRangeOnly) {
  Make(163'840);
  int tries = 0;
  const std::vector<Status> statuses =
      ReadAll({.hook = [&](uint64_t, const StorageRead& read, int64_t* result) {
        if (read.offset_bytes != 40960 + kChunk) return;
        ++tries;
        *result = -EIO;
      }});
  EXPECT_EQ(tries, 3);
  for (size_t i = 0; i < statuses.size(); ++i) EXPECT_EQ(statuses[i].ok(), i != 1);
  EXPECT_EQ(statuses[1].code(), ErrorCode::kIo);
  EXPECT_THAT(statuses[1].message(), HasSubstr(path_));
  EXPECT_THAT(statuses[1].message(), HasSubstr(std::to_string(40960 + kChunk)));
  EXPECT_THAT(statuses[1].message(), HasSubstr("Input/output error"));
}

TEST_F(AsyncReaderTest, DelaysWithoutEndAreAnError) {
  Make(4096);
  const std::vector<Status> statuses =
      ReadAll({.hook = [](uint64_t, const StorageRead&, int64_t* result) { *result = -EAGAIN; }});
  EXPECT_EQ(statuses[0].code(), ErrorCode::kIo);
}

TEST_F(AsyncReaderTest, AFileThatEndsEarlyIsTruncatedWithTheLengthThatItHad) {
  Make(100'000);
  const std::vector<Status> statuses =
      ReadAll({.hook = [](uint64_t, const StorageRead& read, int64_t* result) {
        const int64_t left = 50'000 - static_cast<int64_t>(read.offset_bytes);
        *result = std::clamp<int64_t>(left, 0, *result);
      }});
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_EQ(statuses[1].code(), ErrorCode::kTruncated);
  EXPECT_THAT(statuses[1].message(), HasSubstr("100000"));
  EXPECT_EQ(statuses[2].code(), ErrorCode::kTruncated);
}

TEST_F(AsyncReaderTest, EveryReadFailing) {
  Make(100'000);
  for (const Status& status :
       ReadAll({.hook = [](uint64_t, const StorageRead&, int64_t* result) { *result = -ENXIO; }})) {
    EXPECT_EQ(status.code(), ErrorCode::kIo);
  }
}

}  // namespace
}  // namespace sluice
