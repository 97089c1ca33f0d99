#include "formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/foreign_files.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

Result<SafetensorsHeader> Read(const std::string& bytes) {
  return ReadSafetensorsHeader(MemoryBytes(BytesOf(bytes), "the file"));
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirData) {
  Result<SafetensorsHeader> header = Read(SafetensorsBytes(
      R"({"__metadata__":{"format":"pt"},
          "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
          "a":{"shape":[],"data_offsets":[0,4],"dtype":"F32"},
          "none":{"dtype":"I64","shape":[5,0,7],"data_offsets":[4,4]}}  )",
      std::string(16, 'd')));
  ASSERT_TRUE(header.ok()) << header.status().message();
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_THAT(header->tensors[0].shape, IsEmpty());
  EXPECT_EQ(header->tensors[1].name, "none");
  EXPECT_EQ(header->tensors[1].size_bytes, 0u);
  EXPECT_EQ(header->tensors[2].name, "b");
  EXPECT_EQ(header->tensors[2].type, DType::kBF16);
  EXPECT_THAT(header->tensors[2].shape, ElementsAre(2, 3));
  EXPECT_EQ(header->tensors[2].offset_bytes - header->tensors[0].offset_bytes, 4u);
  EXPECT_EQ(header->tensors[2].size_bytes, 12u);
  EXPECT_THAT(header->metadata, ElementsAre(Pair("format", "pt")));
}

TEST(Safetensors, AFileWithoutTensorsIsAFile) {
  EXPECT_TRUE(Read(SafetensorsBytes("{}", "")).ok());
}

TEST(Safetensors, ReadsWhatTheReferenceWrote) {
  auto file = ReadOnlyFile::Open(SLUICE_TEST_DATA_DIR "/golden/gqa/model.safetensors");
  ASSERT_TRUE(file.ok());
  Result<SafetensorsHeader> header = ReadSafetensorsHeader(**file);
  ASSERT_TRUE(header.ok()) << header.status().message();
  EXPECT_EQ(header->tensors.size(), 20u);
  const SafetensorsTensor& last = header->tensors.back();
  EXPECT_EQ(last.offset_bytes + last.size_bytes, (*file)->size_bytes());
}

struct BadFile {
  const char* name;
  std::string bytes;
  ErrorCode code;
  const char* message;
};

void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.name; }

class SafetensorsBadFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(SafetensorsBadFile, IsRefusedWithItsReason) {
  const Status status = Read(GetParam().bytes).status();
  EXPECT_EQ(status.code(), GetParam().code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
  EXPECT_THAT(status.message(), HasSubstr("the file"));
}

// One tensor "w" with these members, and so many bytes of data.
std::string WithTensor(const std::string& members, size_t data_bytes = 8) {
  return SafetensorsBytes("{\"w\":{" + members + "}}", std::string(data_bytes, 'd'));
}

std::string WithHeader(const std::string& header, size_t data_bytes = 0) {
  return SafetensorsBytes(header, std::string(data_bytes, 'd'));
}

const BadFile kBadFiles[] = {
    {"Empty", "", ErrorCode::kTruncated, "shorter"},
    {"SevenBytes", "1234567", ErrorCode::kTruncated, "shorter"},
    {"HeaderLongerThanTheFile", LittleEndian<uint64_t>(3) + "{}", ErrorCode::kTruncated,
     "3 bytes in a file of 10"},
    {"HeaderLengthWraps", LittleEndian(UINT64_MAX - 7) + "{}", ErrorCode::kTruncated,
     "18446744073709551608"},
    {"EmptyHeader", WithHeader(""), ErrorCode::kCorrupt, "'{'"},
    {"HeaderBeginsWithASpace", WithHeader(" {}"), ErrorCode::kCorrupt, "'{'"},
    {"HeaderIsAnArray", WithHeader("[]"), ErrorCode::kCorrupt, "'{'"},
    {"NotJson", WithHeader("{\"w\":}"), ErrorCode::kCorrupt, "not valid UTF-8 JSON"},
    {"BytesAfterTheJson", WithHeader("{}x"), ErrorCode::kCorrupt, "not valid UTF-8 JSON"},
    {"NotUtf8", WithHeader("{\"\xff\":{}}"), ErrorCode::kCorrupt, "not valid UTF-8 JSON"},
    {"TensorIsANumber", WithHeader("{\"w\":1}"), ErrorCode::kCorrupt, "'w' is a number"},
    {"TensorIsAnArray", WithHeader("{\"w\":[]}"), ErrorCode::kCorrupt, "'w' is an array"},
    {"DeepNesting", WithHeader("{\"w\":{\"shape\":" + std::string(1'000'000, '[')),
     ErrorCode::kCorrupt, "'w': the value of 'shape' is an array"},
    {"SameTensorTwice",
     WithHeader(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                2),
     ErrorCode::kCorrupt, "'w' appears twice"},
    {"SameMemberTwice",
     WithTensor(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': 'dtype' appears twice"},
    {"MemberMissing", WithTensor(R"("dtype":"F32","shape":[2])"), ErrorCode::kCorrupt,
     "'w': needs dtype"},
    {"UnknownMember", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1])"),
     ErrorCode::kCorrupt, "'w': unknown member 'strides'"},
    {"UnknownType", WithTensor(R"("dtype":"F4","shape":[2],"data_offsets":[0,8])"),
     ErrorCode::kUnsupported, "'w': unknown dtype 'F4'"},
    {"TypeIsANumber", WithTensor(R"("dtype":7,"shape":[2],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': the value of 'dtype' is a number"},
    {"NegativeDimension", WithTensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': the value of 'shape' is a negative number"},
    {"FractionalDimension", WithTensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': the value of 'shape' is a number with a fraction"},
    {"DimensionOf2To64",
     WithTensor(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "too large"},
    {"NineDimensions",
     WithTensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"),
     ErrorCode::kLimitExceeded, "'w': more than 8 dimensions"},
    {"ShapeOverflows",
     WithTensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': its shape overflows"},
    {"ShapeOverflowsToTheRightSize",
     WithTensor(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': its shape overflows"},
    {"SizeIsNotThatOfTheShape", WithTensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
     ErrorCode::kCorrupt, "'w': data_offsets [0, 8], its shape and dtype take 12 bytes"},
    {"OffsetsReversed", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"),
     ErrorCode::kCorrupt, "'w': data_offsets [8, 0]"},
    {"OneOffset", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0])"),
     ErrorCode::kCorrupt, "'w': data_offsets has not two values"},
    {"ThreeOffsets", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"),
     ErrorCode::kCorrupt, "'w': data_offsets has not two values"},
    {"DataCutByOneByte", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 7),
     ErrorCode::kTruncated, "'w'"},
    {"BytesAfterTheData", WithTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 9),
     ErrorCode::kCorrupt, "1 bytes after the last tensor"},
    {"GapAtTheBegin", WithTensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"),
     ErrorCode::kCorrupt, "'w' begins at byte 4"},
    {"GapBetween",
     WithHeader(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                3),
     ErrorCode::kCorrupt, "'b' begins at byte 2"},
    {"Overlap",
     WithHeader(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                3),
     ErrorCode::kCorrupt, "'b' begins at byte 1"},
    {"MetadataIsText", WithHeader(R"({"__metadata__":"pt"})"), ErrorCode::kCorrupt,
     "'__metadata__' is a string"},
    {"MetadataHoldsANumber", WithHeader(R"({"__metadata__":{"v":1}})"), ErrorCode::kCorrupt,
     "'v' is a number"},
    {"MetadataKeyTwice", WithHeader(R"({"__metadata__":{"v":"1","v":"2"}})"), ErrorCode::kCorrupt,
     "metadata key 'v' appears twice"},
};

INSTANTIATE_TEST_SUITE_P(All, SafetensorsBadFile, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return std::string(info.param.name); });

// A file of spaces, of any size.
class HugeSource : public ByteSource {
 public:
  uint64_t size_bytes() const override { return uint64_t{1} << 40; }
  const std::string& name() const override { return name_; }
  Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const override {
    EXPECT_EQ(offset_bytes, 0u) << "the header was read";
    const std::string length = LittleEndian<uint64_t>(100'000'001);
    std::memcpy(out.data(), length.data(), out.size());
    return {};
  }

 private:
  std::string name_ = "the file";
};

TEST(Safetensors, RefusesAHeaderAbove100MegabytesBeforeReadingIt) {
  const Status status = ReadSafetensorsHeader(HugeSource()).status();
  EXPECT_EQ(status.code(), ErrorCode::kLimitExceeded);
  EXPECT_THAT(status.message(), HasSubstr("100000001"));
}

TEST(SafetensorsIndex, GivesTheFileOfEachTensor) {
  auto index = ParseSafetensorsIndex(
      R"({"metadata":{"total_size":12},"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors"}})");
  ASSERT_TRUE(index.ok()) << index.status().message();
  EXPECT_THAT(*index, ElementsAre(Pair("a", "x-1.safetensors"), Pair("b", "x-2.safetensors")));
}

TEST(SafetensorsIndex, RefusesFilesOutsideTheDirectory) {
  for (const char* name : {"../w", "/etc/passwd", "sub/w.safetensors", "..", ".", "", "w\\u0000"}) {
    const Status status =
        ParseSafetensorsIndex(std::string(R"({"weight_map":{"t":")") + name + "\"}}").status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt) << name;
    EXPECT_THAT(status.message(), HasSubstr("'t'"));
  }
}

TEST(SafetensorsIndex, RefusesWhatIsNotAnIndex) {
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
                           R"({"weight_map":{"t":1}})", R"({"weight_map":{"t":"a","t":"b"}})"}) {
    EXPECT_EQ(ParseSafetensorsIndex(text).status().code(), ErrorCode::kCorrupt) << text;
  }
}

}  // namespace
}  // namespace sluice
