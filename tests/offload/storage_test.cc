// The two ways to the drive, on a real file.
#include "offload/storage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "offload/host_arena.h"
#include "offload/read_rate.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

struct Way {
  IoMethod method;
  bool direct;
};

class StorageTest : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (GetParam().method == IoMethod::kUring) {
      if (Status status = ProbeUring(); !status.ok()) GTEST_SKIP() << status.message();
    }
    std::mt19937 random(9);
    content_.resize((1 << 20) + 777);
    for (char& byte : content_) byte = static_cast<char>(random());
    path_ = scratch_.Write("file", content_);
  }

  StorageOptions Options() const {
    StorageOptions options;
    options.method = GetParam().method;
    options.direct = GetParam().direct;
    return options;
  }

  ScratchDirectory scratch_;
  std::string path_;
  std::string content_;
};

// Every place of the file, in and outside the registered part of the buffer.
void ExpectReads(Storage* storage, const std::string& content, std::span<std::byte> memory) {
  constexpr uint32_t kSize = 65536;
  std::vector<StorageDone> done;
  int on_the_way = 0;
  size_t finished = 0;
  const auto wait = [&] {
    done.clear();
    storage->Wait(&done);
    for (const StorageDone& end : done) {
      const uint64_t offset = end.tag * kSize;
      const uint64_t expected = std::min<uint64_t>(kSize, content.size() - offset);
      ASSERT_EQ(end.result, static_cast<int64_t>(expected)) << "at " << offset;
      ASSERT_EQ(std::memcmp(memory.data() + offset, content.data() + offset, expected), 0);
      --on_the_way;
      ++finished;
    }
  };
  uint64_t tag = 0;
  for (uint64_t offset = 0; offset < content.size(); offset += kSize) {
    storage->Submit({offset, memory.data() + offset, kSize, tag++});
    if (++on_the_way < storage->depth()) continue;
    ASSERT_NO_FATAL_FAILURE(wait());
  }
  while (on_the_way > 0) ASSERT_NO_FATAL_FAILURE(wait());
  EXPECT_EQ(finished, tag);
}

TEST_P(StorageTest, GivesTheBytesOfTheFileTailIncluded) {
  HostArena memory = *HostArena::Allocate(2 << 20);
  for (const size_t registered : {size_t{0}, size_t{512} << 10, memory.bytes().size()}) {
    for (const int depth : {1, 2, 16}) {
      StorageOptions options = Options();
      options.depth = depth;
      options.buffer = memory.bytes().first(registered);
      Result<std::unique_ptr<Storage>> storage = OpenStorage(path_, options);
      ASSERT_TRUE(storage.ok()) << storage.status().message();
      std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{0});
      ASSERT_NO_FATAL_FAILURE(ExpectReads(storage->get(), content_, memory.bytes()));
    }
  }
}

TEST_P(StorageTest, AFileThatIsNotThereIsNamed) {
  const Result<std::unique_ptr<Storage>> storage = OpenStorage(scratch_ / "none", Options());
  EXPECT_EQ(storage.status().code(), ErrorCode::kNotFound);
  EXPECT_THAT(storage.status().message(), HasSubstr("none"));
}

TEST_P(StorageTest, TheRateOfAFileIsMeasured) {
  ReadRateOptions options;
  options.method = GetParam().method;
  options.direct = GetParam().direct;
  options.chunk_bytes = 65536;
  options.seconds = 0.05;
  const Result<ReadRate> rate = MeasureReadRate(path_, options);
  ASSERT_TRUE(rate.ok()) << rate.status().message();
  EXPECT_GT(rate->bytes, 0u);
  EXPECT_GT(rate->bytes_per_s, 0);
  options.chunk_bytes = 2 << 20;
  EXPECT_EQ(MeasureReadRate(path_, options).status().code(), ErrorCode::kInvalidArgument);
}

// An ordinary user may lock a few MiB only: reads work all the same. In a process of its own: the
// right to ignore limits is given up.
TEST_P(StorageTest, ALowLimitOfLockedMemoryLeavesSlowerReadsNotErrors) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit = {8 << 20, 8 << 20};
    setrlimit(RLIMIT_MEMLOCK, &limit);
    if (getuid() == 0 && setuid(65534) != 0) _exit(2);
    HostArena memory = *HostArena::Allocate(256 << 20);
    StorageOptions options = Options();
    options.buffer = memory.bytes();
    // The scratch directory may be closed to that user.
    Result<std::unique_ptr<Storage>> storage = OpenStorage("/proc/self/exe", options);
    if (!storage.ok()) _exit(3);
    (*storage)->Submit({0, memory.bytes().data(), 4096, 1});
    std::vector<StorageDone> done;
    (*storage)->Wait(&done);
    _exit(done.size() == 1 && done[0].result == 4096 &&
                  std::memcmp(memory.bytes().data(),
                              "\x7f"
                              "ELF",
                              4) == 0
              ? 0
              : 4);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Ways, StorageTest,
    ::testing::Values(Way{IoMethod::kUring, true}, Way{IoMethod::kUring, false},
                      Way{IoMethod::kPread, true}, Way{IoMethod::kPread, false}),
    [](const ::testing::TestParamInfo<Way>& info) {
      return std::string(info.param.method == IoMethod::kUring ? "uring" : "pread") +
             (info.param.direct ? "_direct" : "_cached");
    });

TEST(Storage, WithoutAWishTheBestThatWorksIsTaken) {
  ScratchDirectory scratch;
  const std::string path = scratch.Write("file", std::string(4096, 'x'));
  Result<std::unique_ptr<Storage>> storage = OpenStorage(path, {});
  ASSERT_TRUE(storage.ok()) << storage.status().message();
  EXPECT_THAT((*storage)->description(), HasSubstr(ProbeUring().ok() ? "io_uring" : "pread"));
}

// tmpfs of older kernels knows no direct reads.
TEST(Storage, AFileSystemWithoutDirectReadsIsReadThroughThePageCache) {
  if (access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm";
  const std::string path = "/dev/shm/sluice_storage_test_" + std::to_string(getpid());
  FILE* file = fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  fputs("abcd", file);
  fclose(file);
  Result<std::unique_ptr<Storage>> storage = OpenStorage(path, {});
  ASSERT_TRUE(storage.ok()) << storage.status().message();
  HostArena memory = *HostArena::Allocate(4096);
  (*storage)->Submit({0, memory.bytes().data(), 4096, 0});
  std::vector<StorageDone> done;
  (*storage)->Wait(&done);
  unlink(path.c_str());
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].result, 4);
}

}  // namespace
}  // namespace sluice
