#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/foreign_files.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kF32 = 0, kQ4_K = 12;
constexpr uint32_t kTypeU8 = 0, kTypeI8 = 1, kTypeU16 = 2, kTypeI16 = 3, kTypeU32 = 4, kTypeI32 = 5,
                   kTypeF32 = 6, kTypeBool = 7, kTypeString = 8, kTypeArray = 9, kTypeU64 = 10,
                   kTypeI64 = 11, kTypeF64 = 12;

Result<GgufFile> Read(const std::string& bytes) {
  return GgufFile::Read(MemoryBytes(BytesOf(bytes), "the file"));
}

std::string ArrayOf(uint32_t type, uint64_t count, const std::string& elements) {
  return LittleEndian(type) + LittleEndian(count) + elements;
}

TEST(Gguf, ReadsEveryScalarType) {
  GgufBytes file;
  file.Add("u8", kTypeU8, LittleEndian<uint8_t>(255))
      .Add("i8", kTypeI8, LittleEndian<int8_t>(-128))
      .Add("u16", kTypeU16, LittleEndian<uint16_t>(65535))
      .Add("i16", kTypeI16, LittleEndian<int16_t>(300))
      .Add("u32", kTypeU32, LittleEndian<uint32_t>(4294967295u))
      .Add("i32", kTypeI32, LittleEndian<int32_t>(-5))
      .Add("u64", kTypeU64, LittleEndian<uint64_t>(UINT64_MAX))
      .Add("i64", kTypeI64, LittleEndian<int64_t>(INT64_MAX))
      .Add("f32", kTypeF32, LittleEndian(1.5f))
      .Add("f64", kTypeF64, LittleEndian(1e300))
      .Add("yes", kTypeBool, std::string(1, '\1'))
      .Add("no", kTypeBool, std::string(1, '\0'))
      .AddString("text", "h\xc3\xa9");
  Result<GgufFile> read = Read(file.Build());
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(*read->GetUint("u8"), 255u);
  EXPECT_EQ(*read->GetUint("u16"), 65535u);
  EXPECT_EQ(*read->GetUint("i16"), 300u);
  EXPECT_EQ(*read->GetUint("u32"), 4294967295u);
  EXPECT_EQ(*read->GetUint("u64"), UINT64_MAX);
  EXPECT_EQ(*read->GetUint("i64"), static_cast<uint64_t>(INT64_MAX));
  EXPECT_EQ(*read->GetFloat("f32"), 1.5);
  EXPECT_EQ(*read->GetFloat("f64"), 1e300);
  EXPECT_TRUE(*read->GetBool("yes"));
  EXPECT_FALSE(*read->GetBool("no"));
  EXPECT_EQ(*read->GetString("text"), "h\xc3\xa9");
  EXPECT_EQ(read->metadata().size(), 13u);
  for (const char* negative : {"i8", "i32"}) {
    EXPECT_EQ(read->GetUint(negative).status().code(), ErrorCode::kCorrupt);
  }
  EXPECT_EQ(read->GetUint("text").status().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(read->GetFloat("u8").status().message(), HasSubstr("'u8' is not a float"));
  EXPECT_EQ(read->GetUint("none").status().code(), ErrorCode::kNotFound);
  EXPECT_THAT(read->GetUint("none").status().message(), HasSubstr("'none'"));
}

// The header is refused before the memory is taken, whatever part of it takes most.
TEST(Gguf, AHeaderThatTakesMoreMemoryThanAllowedIsRefused) {
  std::vector<std::string> words(50'000, std::string(20, 'w'));
  GgufBytes many_words;
  many_words.AddStrings("tokenizer.ggml.tokens", words);
  GgufBytes numbers;
  numbers.Add("scores", kTypeArray, ArrayOf(kTypeF32, 1'000'000, std::string(4'000'000, '\0')));
  GgufBytes long_text;
  long_text.AddString("text", std::string(4'000'000, 't'));
  GgufBytes tensors;
  for (int i = 0; i < 20'000; ++i) tensors.AddF32Tensor("tensor." + std::to_string(i), {1});
  struct Case {
    const GgufBytes& file;
    uint64_t at_least;
    const char* name;
  };
  for (const Case& c : {Case{many_words, 50'000 * (sizeof(std::string) + 21), "tokens"},
                        Case{numbers, 4'000'000, "scores"}, Case{long_text, 4'000'000, "text"},
                        Case{tensors, 20'000 * sizeof(GgufTensor), "memory"}}) {
    const std::string bytes = c.file.Build();
    const MemoryBytes source(BytesOf(bytes), "the file");
    Result<GgufFile> whole = GgufFile::Read(source);
    ASSERT_TRUE(whole.ok()) << whole.status().message();
    EXPECT_GE(whole->memory_bytes(), c.at_least) << c.name;
    EXPECT_LE(whole->memory_bytes(), 16 * bytes.size()) << c.name;
    const uint64_t enough = whole->memory_bytes() + std::min<uint64_t>(bytes.size(), 1 << 20);
    EXPECT_TRUE(GgufFile::Read(source, enough).ok()) << c.name;
    for (const uint64_t bound : {enough - 1, c.at_least, uint64_t{100}, uint64_t{0}}) {
      const Status status = GgufFile::Read(source, bound).status();
      EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit) << c.name << " " << bound;
      EXPECT_THAT(status.message(), HasSubstr("the file: ")) << bound;
      EXPECT_THAT(status.message(), HasSubstr(std::to_string(bound) + " bytes of memory"));
    }
    EXPECT_THAT(GgufFile::Read(source, enough - 1).status().message(), HasSubstr(c.name));
  }
}

TEST(Gguf, ReadsArrays) {
  GgufBytes file;
  file.Add("words", kTypeArray,
           ArrayOf(kTypeString, 3,
                   GgufBytes::String("a") + GgufBytes::String("") +
                       GgufBytes::String(std::string(3'000'000, 'w'))))
      .Add("ints", kTypeArray,
           ArrayOf(kTypeI32, 2, LittleEndian<int32_t>(-7) + LittleEndian<int32_t>(8)))
      .Add("bytes", kTypeArray, ArrayOf(kTypeU8, 2, "\xff\x01"))
      .Add("large", kTypeArray, ArrayOf(kTypeU64, 1, LittleEndian<uint64_t>(UINT64_MAX)))
      .Add("floats", kTypeArray, ArrayOf(kTypeF32, 1, LittleEndian(-0.25f)))
      .Add("doubles", kTypeArray, ArrayOf(kTypeF64, 1, LittleEndian(0.5)))
      .Add("empty", kTypeArray, ArrayOf(kTypeI8, 0, ""));
  Result<GgufFile> read = Read(file.Build());
  ASSERT_TRUE(read.ok()) << read.status().message();
  const std::vector<std::string>& words = **read->GetStrings("words");
  ASSERT_EQ(words.size(), 3u);
  EXPECT_EQ(words[0], "a");
  EXPECT_EQ(words[1], "");
  EXPECT_EQ(words[2], std::string(3'000'000, 'w'));  // longer than the reader's window
  EXPECT_THAT(*read->GetInts("ints"), ElementsAre(-7, 8));
  EXPECT_THAT(*read->GetInts("bytes"), ElementsAre(255, 1));
  EXPECT_EQ(read->GetInts("large").status().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(*read->GetFloats("floats"), ElementsAre(-0.25f));
  EXPECT_THAT(*read->GetFloats("doubles"), ElementsAre(0.5f));
  EXPECT_THAT(*read->GetInts("empty"), ElementsAre());
  EXPECT_EQ(read->GetInts("floats").status().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(read->GetStrings("ints").status().code(), ErrorCode::kCorrupt);
}

TEST(Gguf, GivesShapesOutermostFirstAndOffsetsInTheFile) {
  GgufBytes file;
  file.AddU32("general.alignment", 64);
  file.alignment = 64;
  file.AddTensor({"m", {256, 3}, kQ4_K, std::string(144 * 3, 'm')});
  file.AddTensor({"v", {5}, kF32, std::string(20, 'v')});
  file.AddTensor({"cube", {2, 3, 4, 5}, kF32, std::string(480, 'c')});
  const std::string bytes = file.Build();
  Result<GgufFile> read = Read(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->tensors().size(), 3u);
  const GgufTensor* matrix = read->FindTensor("m");
  ASSERT_NE(matrix, nullptr);
  EXPECT_THAT(matrix->shape, ElementsAre(3, 256));
  EXPECT_STREQ(matrix->type->name, "Q4_K");
  EXPECT_EQ(matrix->size_bytes, 432u);
  EXPECT_EQ(matrix->offset_bytes % 64, 0u);
  EXPECT_THAT(read->FindTensor("cube")->shape, ElementsAre(5, 4, 3, 2));
  for (const GgufTensor& tensor : read->tensors()) {
    EXPECT_EQ(bytes.substr(tensor.offset_bytes, tensor.size_bytes),
              std::string(tensor.size_bytes, tensor.name[0]));
  }
  EXPECT_EQ(read->FindTensor("w"), nullptr);
}

TEST(Gguf, ReadsVersion2AndFilesOfVocabularyOnly) {
  GgufBytes file;
  file.version = 2;
  file.AddString("general.architecture", "llama");
  Result<GgufFile> read = Read(file.Build());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->version(), 2u);
  EXPECT_TRUE(read->tensors().empty());
}

TEST(Gguf, TableOfTypesMatchesTheSizesOfGgml) {
  // Values of 256 elements, from the struct definitions in ggml-common.h.
  EXPECT_EQ(FindGgmlType(14)->block_bytes, 128u + 64 + 16 + 2);  // Q6_K
  EXPECT_EQ(FindGgmlType(23)->block_bytes, 2u + 2 + 4 + 128);    // IQ4_XS
  EXPECT_EQ(FindGgmlType(8)->block_bytes, 2u + 32);              // Q8_0
  EXPECT_EQ(FindGgmlType(4), nullptr);
  EXPECT_EQ(FindGgmlType(42), nullptr);
  EXPECT_EQ(FindGgmlType(UINT32_MAX), nullptr);
}

struct BadFile {
  const char* name;
  std::function<std::string()> build;
  ErrorCode code;
  const char* message;
};

void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.name; }

class GgufBadFile : public ::testing::TestWithParam<BadFile> {};

TEST_P(GgufBadFile, IsRefusedWithItsReason) {
  const Status status = Read(GetParam().build()).status();
  EXPECT_EQ(status.code(), GetParam().code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr(GetParam().message));
  EXPECT_THAT(status.message(), HasSubstr("the file"));
}

GgufBytes OneTensor() {
  GgufBytes file;
  file.AddTensor({"w", {32, 2}, kF32, std::string(256, 'w')});
  return file;
}

template <typename Change>
std::string Changed(Change change) {
  GgufBytes file = OneTensor();
  change(file);
  return file.Build();
}

constexpr uint64_t kHuge = uint64_t{1} << 62;

const BadFile kBadFiles[] = {
    {"Empty", [] { return std::string(); }, ErrorCode::kTruncated, "offset 0"},
    {"WrongMagic", [] { return Changed([](GgufBytes& f) { f.magic = "GGML"; }); },
     ErrorCode::kCorrupt, "magic"},
    {"Version1", [] { return Changed([](GgufBytes& f) { f.version = 1; }); },
     ErrorCode::kUnsupported, "version 1"},
    {"BigEndian", [] { return Changed([](GgufBytes& f) { f.version = 0x03000000; }); },
     ErrorCode::kUnsupported, "big-endian"},
    {"CutInTheCounts", [] { return OneTensor().Build().substr(0, 20); }, ErrorCode::kTruncated,
     "offset 16"},
    {"CutInTheDirectory",
     [] {
       GgufBytes file = OneTensor();
       file.AddString("key", std::string(100, 'v'));
       return file.Build().substr(0, 170);
     },
     ErrorCode::kTruncated, "ends at 170"},
    {"MoreKeysThanBytes", [] { return Changed([](GgufBytes& f) { f.key_count = kHuge; }); },
     ErrorCode::kTruncated, "4611686018427387904 keys"},
    {"MoreTensorsThanBytes",
     [] {
       std::string bytes = OneTensor().Build();
       return bytes.replace(8, 8, LittleEndian(UINT64_MAX));
     },
     ErrorCode::kTruncated, "18446744073709551615 tensors"},
    {"KeyLengthWraps",
     [] {
       return Changed([](GgufBytes& f) {
         f.entries = {LittleEndian(UINT64_MAX) + std::string(40, 'k')};
         f.key_count = 1;
       });
     },
     ErrorCode::kTruncated, "a metadata key"},
    {"KeyOf70000Bytes",
     [] { return Changed([](GgufBytes& f) { f.AddU32(std::string(70'000, 'k'), 1); }); },
     ErrorCode::kLimitExceeded, "70000"},
    {"EmptyKey", [] { return Changed([](GgufBytes& f) { f.AddU32("", 1); }); }, ErrorCode::kCorrupt,
     "empty metadata key"},
    {"SameKeyTwice",
     [] { return Changed([](GgufBytes& f) { f.AddU32("a.b", 1).AddString("a.b", "x"); }); },
     ErrorCode::kCorrupt, "'a.b' appears twice"},
    {"StringLongerThanTheFile",
     [] { return Changed([](GgufBytes& f) { f.Add("s", kTypeString, LittleEndian(kHuge)); }); },
     ErrorCode::kTruncated, "'s'"},
    {"UnknownValueType", [] { return Changed([](GgufBytes& f) { f.Add("odd", 13, "12345678"); }); },
     ErrorCode::kCorrupt, "'odd': unknown value type 13"},
    {"BoolOfTwo", [] { return Changed([](GgufBytes& f) { f.Add("b", kTypeBool, "\2"); }); },
     ErrorCode::kCorrupt, "'b': a bool of value 2"},
    {"ArrayLongerThanTheFile",
     [] {
       return Changed(
           [](GgufBytes& f) { f.Add("a", kTypeArray, ArrayOf(kTypeU32, kHuge + 1, "1234")); });
     },
     ErrorCode::kTruncated, "'a'"},
    {"ArrayOfStringsLongerThanTheFile",
     [] {
       return Changed([](GgufBytes& f) {
         f.Add("a", kTypeArray, ArrayOf(kTypeString, 20, GgufBytes::String("x")));
       });
     },
     ErrorCode::kTruncated, "'a'"},
    {"ArrayOfArrays",
     [] {
       return Changed([](GgufBytes& f) {
         f.Add("a", kTypeArray, ArrayOf(kTypeArray, 1, ArrayOf(kTypeU8, 1, "x")));
       });
     },
     ErrorCode::kUnsupported, "'a': an array of arrays"},
    {"ArrayOfUnknownType",
     [] { return Changed([](GgufBytes& f) { f.Add("a", kTypeArray, ArrayOf(99, 1, "x")); }); },
     ErrorCode::kCorrupt, "unknown type 99"},
    {"AlignmentOf0", [] { return Changed([](GgufBytes& f) { f.AddU32("general.alignment", 0); }); },
     ErrorCode::kCorrupt, "general.alignment is 0"},
    {"AlignmentOf48",
     [] { return Changed([](GgufBytes& f) { f.AddU32("general.alignment", 48); }); },
     ErrorCode::kCorrupt, "general.alignment is 48"},
    {"AlignmentOf2To31",
     [] { return Changed([](GgufBytes& f) { f.AddU32("general.alignment", 1u << 31); }); },
     ErrorCode::kCorrupt, "general.alignment is 2147483648"},
    {"AlignmentThatIsText",
     [] { return Changed([](GgufBytes& f) { f.AddString("general.alignment", "32"); }); },
     ErrorCode::kCorrupt, "general.alignment"},
    {"SameTensorTwice", [] { return Changed([](GgufBytes& f) { f.AddTensor(f.tensors[0]); }); },
     ErrorCode::kCorrupt, "'w' appears twice"},
    {"TensorWithoutName", [] { return Changed([](GgufBytes& f) { f.tensors[0].name = ""; }); },
     ErrorCode::kCorrupt, "without a name"},
    {"NoDimensions", [] { return Changed([](GgufBytes& f) { f.tensors[0].dims = {}; }); },
     ErrorCode::kCorrupt, "'w': 0 dimensions"},
    {"FiveDimensions",
     [] { return Changed([](GgufBytes& f) {
            f.tensors[0].dims = {2, 2, 2, 2, 4};
          }); },
     ErrorCode::kCorrupt, "'w': 5 dimensions"},
    {"DimensionOf0", [] { return Changed([](GgufBytes& f) {
                            f.tensors[0].dims = {32, 0};
                          }); },
     ErrorCode::kCorrupt, "'w': a dimension of 0"},
    {"DimensionsOverflow",
     [] {
       return Changed([](GgufBytes& f) {
         f.tensors[0].dims = {uint64_t{1} << 32, uint64_t{1} << 31, 2};
       });
     },
     ErrorCode::kCorrupt, "'w': its dimensions overflow"},
    {"DimensionsOverflowToASmallSize",
     [] {
       return Changed([](GgufBytes& f) { f.tensors[0].dims = {32, (uint64_t{1} << 57) + 2}; });
     },
     ErrorCode::kCorrupt, "'w': its dimensions overflow"},
    {"WithdrawnType", [] { return Changed([](GgufBytes& f) { f.tensors[0].type = 4; }); },
     ErrorCode::kUnsupported, "'w': unknown tensor type 4"},
    {"NegativeType", [] { return Changed([](GgufBytes& f) { f.tensors[0].type = UINT32_MAX; }); },
     ErrorCode::kUnsupported, "'w': unknown tensor type"},
    {"RowOfHalfABlock",
     [] {
       return Changed([](GgufBytes& f) {
         f.tensors[0].type = 8;
         f.tensors[0].dims = {48, 2};
       });
     },
     ErrorCode::kCorrupt, "'w': rows of 48 values"},
    {"OffsetNotAligned", [] { return Changed([](GgufBytes& f) { f.offsets = {16}; }); },
     ErrorCode::kCorrupt, "'w': offset 16"},
    {"OffsetWraps", [] { return Changed([](GgufBytes& f) { f.offsets = {UINT64_MAX - 31}; }); },
     ErrorCode::kTruncated, "'w'"},
    {"DataCutByOneByte",
     [] {
       std::string bytes = OneTensor().Build();
       bytes.pop_back();
       return bytes;
     },
     ErrorCode::kTruncated, "'w': 256 bytes"},
    {"TensorsOverlap",
     [] {
       return Changed([](GgufBytes& f) {
         f.AddTensor({"x", {32}, kF32, std::string(128, 'x')});
         f.offsets = {0, 224};
       });
     },
     ErrorCode::kCorrupt, "'w' and 'x' overlap"},
    {"TensorsAtOnePlace",
     [] {
       return Changed([](GgufBytes& f) {
         f.AddTensor({"x", {32}, kF32, std::string(128, 'x')});
         f.offsets = {0, 0};
       });
     },
     ErrorCode::kCorrupt, "overlap"},
    {"NameThatForgesALine",
     [] {
       return Changed([](GgufBytes& f) {
         f.tensors[0].name = "w\nerror: all is well";
         f.tensors[0].dims = {32, 0};
       });
     },
     ErrorCode::kCorrupt, "'w\\x0aerror: all is well'"},
};

INSTANTIATE_TEST_SUITE_P(All, GgufBadFile, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Gguf, EveryPrefixOfAFileIsRefused) {
  GgufBytes file = OneTensor();
  file.AddString("general.name", "n")
      .Add("words", kTypeArray,
           ArrayOf(kTypeString, 2, GgufBytes::String("a") + GgufBytes::String("")));
  const std::string bytes = file.Build();
  ASSERT_TRUE(Read(bytes).ok());
  for (size_t length = 0; length < bytes.size(); ++length) {
    const Status status = Read(bytes.substr(0, length)).status();
    EXPECT_EQ(status.code(), ErrorCode::kTruncated) << length << ": " << status.message();
  }
}

}  // namespace
}  // namespace sluice
