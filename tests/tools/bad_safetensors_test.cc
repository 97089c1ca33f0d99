// safetensors files that are wrong, through the program.
#include <gtest/gtest.h>

#include "tests/support/bad_file.h"
#include "tests/support/foreign_files.h"
#include "tests/support/program.h"

namespace sluice {
namespace {

std::string Header(const std::string& header, size_t data_bytes = 0) {
  return SafetensorsBytes(header, std::string(data_bytes, 'd'));
}

// One tensor of 8 bytes.
std::string Tensor(const std::string& type, const std::string& shape, const std::string& offsets,
                   size_t data_bytes = 8) {
  return Header(
      R"({"w":{"dtype":)" + type + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      data_bytes);
}

// Two tensors of bytes, the second at [begin, end).
std::string Two(const std::string& offsets, size_t data_bytes) {
  return Header(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"U8","shape":[4],"data_offsets":)" +
                    offsets + "}}",
                data_bytes);
}

BadFile Bad(const char* name, int exit_code, const char* code, const char* message,
            const std::string& bytes) {
  return {name, [bytes] { return bytes; }, exit_code, code, message};
}

std::string NestedObjects(int depth) {
  std::string text;
  for (int i = 0; i < depth; ++i) text += "{\"a\":";
  return text;
}

const BadFile kBadFiles[] = {
    Bad("Empty", 1, "corrupt", "is neither a .sluice file, nor GGUF, nor safetensors", ""),
    Bad("EightBytes", 1, "corrupt", "is neither a .sluice file, nor GGUF, nor safetensors",
        std::string(8, '\0')),
    Bad("ALengthAlone", 1, "truncated", "a header of 2 bytes in a file of 9",
        LittleEndian<uint64_t>(2) + "{"),
    Bad("LengthOf2To63", 1, "truncated", "a header of 9223372036854775808 bytes in a file of 10",
        LittleEndian(uint64_t{1} << 63) + "{}"),
    Bad("LengthOf2To32", 1, "truncated", "a header of 4294967296 bytes in a file of 10",
        LittleEndian(uint64_t{1} << 32) + "{}"),
    Bad("LengthOneTooLong", 1, "truncated", "a header of 3 bytes in a file of 10",
        LittleEndian<uint64_t>(3) + "{}"),
    Bad("LengthOneTooShort", 1, "corrupt", "the header is not valid UTF-8 JSON near its byte 2",
        LittleEndian<uint64_t>(1) + "{}"),
    Bad("BigEndianLength", 1, "truncated", "a header of 144115188075855872 bytes in a file of 10",
        std::string("\0\0\0\0\0\0\0\2{}", 10)),
    Bad("Unclosed", 1, "corrupt", "tensor 'w': the header is not valid UTF-8 JSON near its",
        Header(R"({"w":{"dtype":"U8")")),
    Bad("TrailingComma", 1, "corrupt", "the value of 'w' is a number", Header(R"({"w":1,})")),
    Bad("Comment", 1, "corrupt", "the header is not valid UTF-8 JSON near its byte 2",
        Header(R"({/* */})")),
    Bad("NotANumber", 1, "corrupt", "the header is not valid UTF-8 JSON near its byte 6",
        Header(R"({"w":NaN})")),
    Bad("OverlongUtf8", 1, "corrupt", "the header is not valid UTF-8 JSON near its byte 3",
        Header("{\"\xc0\xaf\":1}")),
    Bad("LoneSurrogate", 1, "corrupt", "the header is not valid UTF-8 JSON near its byte 9",
        Header(R"({"\ud800":1})")),
    Bad("TensorIsNull", 1, "corrupt", "the value of 'w' is null", Header(R"({"w":null})")),
    Bad("TensorIsText", 1, "corrupt", "the value of 'w' is a string", Header(R"({"w":"F32"})")),
    Bad("TensorIsEmpty", 1, "corrupt", "tensor 'w': needs dtype, shape and data_offsets",
        Header(R"({"w":{}})")),
    Bad("NestedALot", 1, "corrupt", "the value of 'w' is an array",
        Header("{\"w\":" + std::string(5000, '['))),
    Bad("NestedObjects", 1, "corrupt", "tensor 'a': unknown member 'a'",
        Header(NestedObjects(5000))),
    Bad("NoShape", 1, "corrupt", "tensor 'w': needs dtype, shape and data_offsets",
        Header(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1)),
    Bad("NoType", 1, "corrupt", "tensor 'w': needs dtype, shape and data_offsets",
        Header(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1)),
    Bad("TypeIsEmpty", 3, "unsupported", "tensor 'w': unknown dtype ''",
        Tensor("\"\"", "[8]", "[0,8]")),
    Bad("TypeInLowerCase", 3, "unsupported", "tensor 'w': unknown dtype 'f32'",
        Tensor("\"f32\"", "[2]", "[0,8]")),
    Bad("TypeOfHundredKilobytes", 3, "unsupported",
        "tensor 'w': unknown dtype 'FFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
        Tensor("\"" + std::string(100'000, 'F') + "\"", "[2]", "[0,8]")),
    Bad("TypeWithANewline", 3, "unsupported", "tensor 'w': unknown dtype 'F\\x0a32'",
        Tensor(R"("F\n32")", "[2]", "[0,8]")),
    Bad("ShapeIsANumber", 1, "corrupt", "tensor 'w': the value of 'shape' is a number",
        Tensor("\"F32\"", "2", "[0,8]")),
    Bad("ShapeOfText", 1, "corrupt", "tensor 'w': the value of 'shape' is a string",
        Tensor("\"F32\"", "[\"2\"]", "[0,8]")),
    Bad("ShapeOfTrue", 1, "corrupt", "tensor 'w': the value of 'shape' is a bool",
        Tensor("\"F32\"", "[true]", "[0,8]")),
    Bad("ShapeOf1e3", 1, "corrupt", "tensor 'w': the value of 'shape' is a number with a",
        Tensor("\"F32\"", "[1e3]", "[0,8]")),
    Bad("ShapeNested", 1, "corrupt", "tensor 'w': the value of 'shape' is an array",
        Tensor("\"F32\"", "[[2]]", "[0,8]")),
    Bad("ProductOf2To64", 1, "corrupt", "tensor 'w': its shape overflows 64 bits",
        Tensor("\"U8\"", "[4294967296,4294967296]", "[0,0]", 0)),
    Bad("BytesOf2To64", 1, "corrupt", "tensor 'w': its shape overflows 64 bits",
        Tensor("\"F64\"", "[2305843009213693952]", "[0,0]", 0)),
    Bad("ZeroTimesOverflow", 1, "corrupt", "tensor 'w': its shape overflows 64 bits",
        Tensor("\"U8\"", "[4294967296,4294967296,0]", "[0,8]")),
    Bad("OffsetsAreText", 1, "corrupt", "tensor 'w': the value of 'data_offsets' is a string",
        Tensor("\"F32\"", "[2]", "\"0,8\"")),
    Bad("NegativeOffset", 1, "corrupt", "tensor 'w': the value of 'data_offsets' is a negative",
        Tensor("\"F32\"", "[2]", "[-8,0]")),
    Bad("OffsetOf2To64", 1, "corrupt", "tensor 'w': the value of 'data_offsets' is a number",
        Tensor("\"F32\"", "[2]", "[0,18446744073709551616]")),
    Bad("OffsetsWrap", 1, "corrupt", "tensor 'w': data_offsets [18446744073709551608, 0], its",
        Tensor("\"U8\"", "[8]", "[18446744073709551608,0]")),
    Bad("ShorterThanItsShape", 1, "corrupt", "tensor 'w': data_offsets [0, 4], its shape and dtype",
        Tensor("\"F32\"", "[2]", "[0,4]", 4)),
    Bad("LongerThanItsShape", 1, "corrupt", "tensor 'w': data_offsets [0, 8], its shape and dtype",
        Tensor("\"F32\"", "[1]", "[0,8]")),
    Bad("NoData", 1, "truncated", "tensor 'w' of 8 bytes at byte 0 of the data, the file",
        Tensor("\"F32\"", "[2]", "[0,8]", 0)),
    Bad("TensorsAtOnePlace", 1, "corrupt", "tensor 'b' begins at byte 0 of the data, inside what",
        Two("[0,4]", 4)),
    Bad("TensorInsideAnother", 1, "corrupt", "tensor 'b' begins at byte 1 of the data, inside what",
        Two("[1,5]", 5)),
    Bad("GapOfOneByte", 1, "corrupt", "tensor 'b' begins at byte 5 of the data, after a gap",
        Two("[5,9]", 9)),
    Bad("SecondTensorCut", 1, "truncated", "tensor 'b' of 4 bytes at byte 4 of the data, the file",
        Two("[4,8]", 7)),
    Bad("MoreThanTheTensors", 1, "corrupt", "4088 bytes after the last tensor belong to none",
        Two("[4,8]", 4096)),
    Bad("MetadataIsAList", 1, "corrupt", "the value of '__metadata__' is an array",
        Header(R"({"__metadata__":[]})")),
    Bad("MetadataIsNested", 1, "corrupt", "the value of 'a' is an object",
        Header(R"({"__metadata__":{"a":{"b":"c"}}})")),
    Bad("MetadataOfNull", 1, "corrupt", "the value of 'a' is null",
        Header(R"({"__metadata__":{"a":null}})")),
};

class BadSafetensors : public ::testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, InspectSaysWhatIsWrongInOneLine) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "w.safetensors", GetParam().bytes());
  ExpectOneLineOfError({"inspect", scratch / "w.safetensors"}, "w.safetensors", GetParam());
}

INSTANTIATE_TEST_SUITE_P(Files, BadSafetensors, ::testing::ValuesIn(kBadFiles),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
