#include "formats/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace sluice {
namespace {

using ::testing::HasSubstr;

ErrorCode CodeOf(std::string_view text, size_t max_depth = 32, size_t max_values = 1000) {
  return ParseStrictJson(text, max_depth, max_values).status().code();
}

TEST(StrictJson, BuildsTheSameTreeAsThePlainParser) {
  for (const char* text :
       {"null", "true", "-7", "18446744073709551615", "1.5e-3", R"("\u00e9\ud83d\ude00")", "[]",
        "{}", R"([1,[2,[3,{}],[]],{"a":{"b":[{"c":null}]},"d":"x"},false])",
        R"( {"z":1, "a":[{"k":[1,2,{"m":{}}]},{"k":[]}], "b":{"x":{"y":[[]]}}} )"}) {
    Result<nlohmann::json> value = ParseStrictJson(text);
    ASSERT_TRUE(value.ok()) << text << value.status().message();
    EXPECT_EQ(*value, nlohmann::json::parse(text)) << text;
  }
}

TEST(StrictJson, RefusesAKeyThatAppearsTwice) {
  Result<nlohmann::json> value = ParseStrictJson(R"({"a":{"size":1,"size":2}})");
  EXPECT_EQ(value.status().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(value.status().message(), HasSubstr("'size' appears twice"));
  EXPECT_EQ(CodeOf(R"([{"a":1},{"a":1}])"), ErrorCode::kOk);
}

TEST(StrictJson, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\":}", "nul", "01", "1e999", "\"\xff\"",
                           "\"\xed\xa0\x80\"", "[1] 2", "{'a':1}", "NaN", "\"a\nb\"", "]"}) {
    EXPECT_EQ(CodeOf(text), ErrorCode::kCorrupt) << text;
  }
}

TEST(StrictJson, BoundsNesting) {
  EXPECT_EQ(CodeOf(std::string(32, '[') + std::string(32, ']')), ErrorCode::kOk);
  EXPECT_EQ(CodeOf(std::string(33, '[') + std::string(33, ']')), ErrorCode::kLimitExceeded);
  EXPECT_EQ(CodeOf(std::string(10'000'000, '[')), ErrorCode::kLimitExceeded);
}

TEST(StrictJson, RefusesValuesOutOfProportionToTheText) {
  const auto repeated = [](const std::string& piece, size_t count) {
    std::string text = "[" + piece;
    for (size_t i = 1; i < count; ++i) text += "," + piece;
    return text + "]";
  };
  for (const char* piece : {"1", "[]", "{}", "\"\"", "{\"\":1}", "[1]"}) {
    EXPECT_EQ(CodeOf(repeated(piece, 100)), ErrorCode::kOk) << piece;
    EXPECT_EQ(CodeOf(repeated(piece, 30'000), 32, 1'000'000), ErrorCode::kLimitExceeded) << piece;
  }
  // What files have many of: numbers of a scaling, names of layers, tensors of an index.
  for (const char* piece :
       {"1.0299999713897705", "\"sliding_attention\"",
        R"({"model.layers.0.mlp.down_proj.weight":"model-00001-of-00004.safetensors"})"}) {
    EXPECT_EQ(CodeOf(repeated(piece, 30'000), 32, 1'000'000), ErrorCode::kOk) << piece;
  }
}

TEST(StrictJson, BoundsTheNumberOfValues) {
  EXPECT_EQ(CodeOf("[1,2,3]", 32, 4), ErrorCode::kOk);
  EXPECT_EQ(CodeOf("[1,2,3]", 32, 3), ErrorCode::kLimitExceeded);
}

}  // namespace
}  // namespace sluice
