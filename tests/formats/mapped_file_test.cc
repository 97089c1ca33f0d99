#include "formats/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "tests/support/foreign_files.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string TextAt(const ByteSource& source, uint64_t offset, uint64_t length) {
  std::string text(length, '?');
  const Status s = source.ReadAt(offset, std::as_writable_bytes(std::span(text)));
  return s.ok() ? text : s.message();
}

TEST(ReadOnlyFile, ReadsAnyRangeUpToTheLastByte) {
  const ScratchDirectory scratch;
  auto file = ReadOnlyFile::Open(scratch.Write("f", "0123456789"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->size_bytes(), 10u);
  EXPECT_EQ(TextAt(**file, 0, 10), "0123456789");
  EXPECT_EQ(TextAt(**file, 9, 1), "9");
  EXPECT_EQ(TextAt(**file, 10, 0), "");
}

TEST(ReadOnlyFile, RefusesRangesBeyondTheEndEvenWhereTheSumWraps) {
  const ScratchDirectory scratch;
  auto file = ReadOnlyFile::Open(scratch.Write("f", "0123456789"));
  ASSERT_TRUE(file.ok());
  std::vector<std::byte> out(4);
  for (const uint64_t offset : {uint64_t{7}, uint64_t{11}, uint64_t{1} << 63, UINT64_MAX - 1}) {
    const Status s = (*file)->ReadAt(offset, out);
    EXPECT_EQ(s.code(), ErrorCode::kTruncated) << offset;
    EXPECT_THAT(s.message(), HasSubstr((*file)->name()));
    EXPECT_THAT(s.message(), HasSubstr(std::to_string(offset)));
  }
}

TEST(ReadOnlyFile, AFileCutAfterOpenIsAnErrorValue) {
  const ScratchDirectory scratch;
  const std::string path = scratch.Write("f", std::string(100'000, 'x'));
  auto file = ReadOnlyFile::Open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  std::vector<std::byte> out(100'000);
  const Status s = (*file)->ReadAt(0, out);
  EXPECT_EQ(s.code(), ErrorCode::kTruncated);
  EXPECT_THAT(s.message(), HasSubstr("5000"));
}

// Takes a file out of the page cache, where that is possible.
void Uncache(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

TEST(ReadOnlyFile, ReadOnceGivesTheSameBytesCachedOrNotAtAnyOffsetAndAddress) {
  const ScratchDirectory scratch;
  std::string bytes(3'000'123, ' ');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
  const std::string path = scratch.Write("f", bytes);
  std::vector<std::byte> memory(bytes.size() + 2 * kDirectAlignment);
  const uint64_t base =
      kDirectAlignment - reinterpret_cast<uintptr_t>(memory.data()) % kDirectAlignment;
  for (const bool cached : {true, false}) {
    for (const uint64_t offset : {0, 1, 511, 4095, 4096, 4097, 70'001, 2'999'000}) {
      for (const uint64_t size : {0, 1, 4096, 262'144, 266'240, 270'000, 1'000'000, 2'900'000}) {
        for (const uint64_t shift : {0, 1, 512}) {  // 0: the address fits
          if (!cached) Uncache(path);
          auto file = ReadOnlyFile::Open(path);
          ASSERT_TRUE(file.ok());
          const auto out = std::span(memory).subspan(base + (offset + shift) % kDirectAlignment,
                                                     std::min(size, bytes.size() - offset));
          ASSERT_TRUE((*file)->ReadOnce(offset, out).ok());
          ASSERT_EQ(std::memcmp(out.data(), bytes.data() + offset, out.size()), 0)
              << offset << " " << size << " " << shift;
        }
      }
    }
  }
}

TEST(ReadOnlyFile, ReadOnceOfAFileCutAfterOpenIsAnErrorValue) {
  const ScratchDirectory scratch;
  const std::string path = scratch.Write("f", std::string(3'000'000, 'x'));
  Uncache(path);
  auto file = ReadOnlyFile::Open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(truncate(path.c_str(), 1'000'001), 0);
  std::vector<std::byte> memory(3'000'000 + kDirectAlignment);
  const uint64_t base =
      kDirectAlignment - reinterpret_cast<uintptr_t>(memory.data()) % kDirectAlignment;
  const Status s = (*file)->ReadOnce(0, std::span(memory).subspan(base, 3'000'000));
  EXPECT_EQ(s.code(), ErrorCode::kTruncated);
  EXPECT_THAT(s.message(), HasSubstr("1000001"));
  EXPECT_EQ((*file)->ReadOnce(2'999'999, std::span(memory).first(2)).code(), ErrorCode::kTruncated);
}

TEST(ReadOnlyFile, NamesThePathOfWhatItCannotOpen) {
  const ScratchDirectory scratch;
  const std::string absent = scratch.path() + "/absent";
  EXPECT_EQ(ReadOnlyFile::Open(absent).status().code(), ErrorCode::kNotFound);
  EXPECT_THAT(ReadOnlyFile::Open(absent).status().message(), HasSubstr(absent));
  EXPECT_EQ(ReadOnlyFile::Open(scratch.path()).status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(ReadOnlyFile::Open(scratch.path() + "/" + std::string(300, 'n')).status().code(),
            ErrorCode::kIo);
}

TEST(ReadOnlyFile, DoesNotWaitForTheWriterOfAPipe) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(ReadOnlyFile::Open(path).status().code(), ErrorCode::kInvalidArgument);
}

TEST(FileMapping, ShowsTheFileAndOutlivesIt) {
  const ScratchDirectory scratch;
  auto file = ReadOnlyFile::Open(scratch.Write("f", "mapped"));
  ASSERT_TRUE(file.ok());
  Result<FileMapping> mapping = FileMapping::Map(**file);
  ASSERT_TRUE(mapping.ok());
  file->reset();
  const FileMapping moved = *std::move(mapping);
  ASSERT_EQ(moved.bytes().size(), 6u);
  EXPECT_EQ(moved.bytes()[5], std::byte{'d'});
}

TEST(FileMapping, OfAnEmptyFileIsEmpty) {
  const ScratchDirectory scratch;
  auto file = ReadOnlyFile::Open(scratch.Write("f", ""));
  ASSERT_TRUE(file.ok());
  Result<FileMapping> mapping = FileMapping::Map(**file);
  ASSERT_TRUE(mapping.ok());
  EXPECT_TRUE(mapping->bytes().empty());
}

TEST(MemoryBytes, RefusesRangesBeyondTheEnd) {
  const MemoryBytes memory(BytesOf("abc"), "three bytes");
  EXPECT_EQ(TextAt(memory, 1, 2), "bc");
  std::vector<std::byte> out(3);
  const Status s = memory.ReadAt(1, out);
  EXPECT_EQ(s.code(), ErrorCode::kTruncated);
  EXPECT_THAT(s.message(), HasSubstr("three bytes"));
}

TEST(ReadWholeFile, ReadsUpToItsLimit) {
  const ScratchDirectory scratch;
  const std::string path = scratch.Write("f", "12345");
  EXPECT_EQ(*ReadWholeFile(path, 5), "12345");
  EXPECT_EQ(ReadWholeFile(path, 4).status().code(), ErrorCode::kLimitExceeded);
}

}  // namespace
}  // namespace sluice
