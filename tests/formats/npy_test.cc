#include "formats/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "formats/mapped_file.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As numpy.lib.format writes it: padded so that the data begins at a multiple of 64.
std::string NpyBytes(const std::string& dict, const std::string& data) {
  std::string header = dict;
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size() & 0xff) +
         static_cast<char>(header.size() >> 8) + header + data;
}

TEST(Npy, WritesTheBytesThatTheSpecificationAsksFor) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/a.npy";
  Result<NpyWriter> writer = NpyWriter::Create(path, {2, 1, 3});
  ASSERT_TRUE(writer.ok());
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  ASSERT_TRUE(writer->Append(std::span(values).first(2)).ok());
  ASSERT_TRUE(writer->Append({}).ok());
  ASSERT_TRUE(writer->Append(std::span(values).subspan(2)).ok());
  ASSERT_TRUE(writer->Finish().ok());
  const std::string data(reinterpret_cast<const char*>(values.data()), 24);
  EXPECT_EQ(*ReadWholeFile(path, 10'000),
            NpyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 3), }", data));
  Result<NpyArray> read = ReadNpy(path);
  ASSERT_TRUE(read.ok());
  EXPECT_THAT(read->shape, ElementsAre(2, 1, 3));
  EXPECT_EQ(read->floats, values);
}

TEST(Npy, WritesValuesAtTheirPlacesInAnyOrder) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/a.npy";
  Result<NpyWriter> writer = NpyWriter::Create(path, {2, 3});
  ASSERT_TRUE(writer.ok());
  const std::vector<float> values = {4, 5, 0, 1, 2, 3};
  EXPECT_TRUE(writer->WriteAt(4, std::span(values).first(2)).ok());
  NpyWriter moved = std::move(*writer);
  EXPECT_FALSE(moved.WriteAt(3, std::span(values).first(4)).ok()) << "beyond the end";
  EXPECT_FALSE(moved.WriteAt(7, {}).ok());
  EXPECT_FALSE(moved.WriteAt(UINT64_MAX, std::span(values).first(2)).ok());
  EXPECT_TRUE(moved.WriteAt(0, std::span(values).subspan(2)).ok());
  EXPECT_FALSE(moved.WriteAt(0, std::span(values).first(1)).ok()) << "all are there";
  ASSERT_TRUE(moved.Finish().ok());
  EXPECT_THAT(ReadNpy(path)->floats, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(Npy, WhatWasNotFinishedIsNoArrayThoughItIsAsLong) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/a.npy";
  {
    Result<NpyWriter> writer = NpyWriter::Create(path, {2, 3});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->WriteAt(5, std::vector<float>{1}).ok());
  }
  EXPECT_EQ(ReadNpy(path).status().code(), ErrorCode::kCorrupt);
  Result<NpyWriter> writer = NpyWriter::Create(path, {2, 3});
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->WriteAt(5, std::vector<float>{1}).ok());
  EXPECT_EQ(writer->Finish().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(ReadNpy(path).status().code(), ErrorCode::kCorrupt);
}

TEST(Npy, APipeIsRefused) {
  int ends[2] = {};
  ASSERT_EQ(pipe(ends), 0);
  const Status status = NpyWriter::Create("/dev/fd/" + std::to_string(ends[1]), {1}).status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("pipe"));
  close(ends[0]);
  close(ends[1]);
}

TEST(Npy, WritesVectorsAndScalars) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/a.npy";
  for (const std::vector<uint64_t>& shape : {std::vector<uint64_t>{1}, std::vector<uint64_t>{}}) {
    Result<NpyWriter> writer = NpyWriter::Create(path, shape);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->Append(std::vector<float>{7.5f}).ok());
    ASSERT_TRUE(writer->Finish().ok());
    EXPECT_THAT(ReadNpy(path)->floats, ElementsAre(7.5f));
    EXPECT_EQ(ReadNpy(path)->shape, shape);
  }
}

TEST(Npy, KnowsWhenValuesAreMissingOrTooMany) {
  const ScratchDirectory scratch;
  Result<NpyWriter> writer = NpyWriter::Create(scratch.path() + "/a.npy", {2});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(writer->Append(std::vector<float>(3)).code(), ErrorCode::kInvalidArgument);
  ASSERT_TRUE(writer->Append(std::vector<float>(1)).ok());
  EXPECT_EQ(writer->Finish().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(NpyWriter::Create(scratch.path() + "/b", {uint64_t{1} << 40, uint64_t{1} << 40})
                .status()
                .code(),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(NpyWriter::Create(scratch.path() + "/no/such/folder", {1}).status().code(),
            ErrorCode::kIo);
}

TEST(Npy, ReadsGoldensOfNumpy) {
  const std::string golden = SLUICE_TEST_DATA_DIR "/golden/gqa/";
  Result<NpyArray> positions = ReadNpy(golden + "expected_positions.npy");
  ASSERT_TRUE(positions.ok()) << positions.status().message();
  EXPECT_EQ(positions->type, DType::kI64);
  EXPECT_THAT(positions->shape, ElementsAre(12));
  EXPECT_EQ(positions->ints.size(), 12u);
  Result<NpyArray> logits = ReadNpy(golden + "expected_logits.npy");
  ASSERT_TRUE(logits.ok());
  EXPECT_THAT(logits->shape, ElementsAre(2, 12, 307));
  EXPECT_EQ(logits->floats.size(), 2u * 12 * 307);
}

TEST(Npy, RefusesBadFiles) {
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  struct Case {
    std::string bytes;
    ErrorCode code;
  };
  const Case cases[] = {
      {"", ErrorCode::kCorrupt},
      {"PK\x03\x04", ErrorCode::kCorrupt},
      {NpyBytes(good, "").substr(0, 9), ErrorCode::kTruncated},
      {NpyBytes(good, "").substr(0, 40), ErrorCode::kTruncated},
      {NpyBytes(good, "1234567"), ErrorCode::kTruncated},
      {NpyBytes(good, "123456789"), ErrorCode::kCorrupt},
      {NpyBytes("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", "12345678"),
       ErrorCode::kUnsupported},
      {NpyBytes("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "12345678"),
       ErrorCode::kUnsupported},
      {NpyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "12345678"),
       ErrorCode::kCorrupt},
      {NpyBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967297), }",
                "1234"),
       ErrorCode::kTruncated},
      {NpyBytes("{}", ""), ErrorCode::kCorrupt},
  };
  const ScratchDirectory scratch;
  for (const Case& bad : cases) {
    const std::string path = scratch.Write("bad.npy", bad.bytes);
    EXPECT_EQ(ReadNpy(path).status().code(), bad.code) << bad.bytes;
    EXPECT_THAT(ReadNpy(path).status().message(), HasSubstr("bad.npy"));
  }
}

}  // namespace
}  // namespace sluice
