#include "formats/json_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

ErrorCode CodeOf(std::string_view text, size_t max_depth = 32, size_t max_values = 1000) {
  return ParseJsonTree(text, max_depth, max_values).status().code();
}

Json Copy(const JsonValue& value) {
  if (value.is_boolean()) return value.AsBool();
  if (value.is_unsigned()) return value.AsUint64();
  if (value.is_integer()) return value.AsInt64();
  if (value.is_number()) return value.AsDouble();
  if (value.is_string()) return std::string(value.AsString());
  if (value.is_array()) {
    Json list = Json::array();
    for (const JsonValue& element : value.elements()) list.push_back(Copy(element));
    EXPECT_EQ(list.size(), value.size());
    return list;
  }
  if (value.is_object()) {
    Json object = Json::object();
    for (const auto& [name, member] : value.members()) object[std::string(name)] = Copy(member);
    EXPECT_EQ(object.size(), value.size());
    return object;
  }
  EXPECT_TRUE(value.is_null());
  return nullptr;
}

TEST(JsonTree, HoldsTheSameAsThePlainParser) {
  for (
      const char* text :
      {"null", "true", "-7", "18446744073709551615", "-9223372036854775808", "1.5e-3", "-0.0",
       R"("\u00e9\ud83d\ude00\n")", "[]", "{}", R"(["",{"":""},[[]],[{}]])",
       R"([1,[2,[3,{}],[]],{"a":{"b":[{"c":null}]},"d":"x"},false])",
       R"( {"z":1, "a":[{"k":[1,2,{"m":{}}]},{"k":[]}], "b":{"x":{"y":[[]]}}, "s":",:[{\"\\"} )"}) {
    const Result<JsonDocument> document = ParseJsonTree(text);
    ASSERT_TRUE(document.ok()) << text << document.status().message();
    EXPECT_EQ(Copy(document->root()).dump(), Json::parse(text).dump());
  }
}

TEST(JsonTree, FindsMembersAndOnlyThose) {
  const Result<JsonDocument> document =
      ParseJsonTree(R"({"a":[{"b":1}],"b":null,"c":{"b":2},"":3})");
  ASSERT_TRUE(document.ok());
  const JsonValue& root = document->root();
  EXPECT_EQ(root.Find("c")->Find("b")->AsUint64(), 2u);
  EXPECT_TRUE(root.Find("b")->is_null());
  EXPECT_EQ(root.Find("")->AsUint64(), 3u);
  EXPECT_EQ(root.Find("d"), nullptr);
  EXPECT_EQ(root.Find("a")->Find("b"), nullptr);  // an array has no members
}

TEST(JsonTree, KeepsNothingOfTheTextItWasReadFrom) {
  std::string text = R"({"name":"value"})";
  Result<JsonDocument> document = ParseJsonTree(text);
  text.assign(text.size(), 'x');
  const JsonDocument moved = *std::move(document);
  EXPECT_EQ(moved->Find("name")->AsString(), "value");
}

TEST(JsonTree, RefusesANameThatAppearsTwice) {
  std::string many = "{";
  for (int i = 0; i < 40; ++i) many += "\"k" + std::to_string(i) + "\":{\"a\":0},";
  EXPECT_EQ(CodeOf(many + "\"x\":0}"), ErrorCode::kOk);
  for (const std::string& text : {std::string(R"({"k7":1,"k7":2})"), many + "\"k7\":0}",
                                  std::string(R"([{"a":{"k7":0,"\u006b7":1}}])")}) {
    const Status status = ParseJsonTree(text).status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt) << text;
    EXPECT_THAT(status.message(), HasSubstr("'k7' appears twice"));
  }
  EXPECT_EQ(CodeOf(R"([{"a":1},{"a":1}])"), ErrorCode::kOk);
}

TEST(JsonTree, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\":}", "nul", "01", "1e999", "\"\xff\"",
                           "\"\xed\xa0\x80\"", "[1] 2", "{'a':1}", "NaN", "\"a\nb\"", "]"}) {
    EXPECT_EQ(CodeOf(text), ErrorCode::kCorrupt) << text;
  }
}

TEST(JsonTree, BoundsNestingAndTheNumberOfValues) {
  EXPECT_EQ(CodeOf(std::string(32, '[') + std::string(32, ']')), ErrorCode::kOk);
  EXPECT_EQ(CodeOf(std::string(33, '[') + std::string(33, ']')), ErrorCode::kLimitExceeded);
  EXPECT_EQ(CodeOf(std::string(10'000'000, '[')), ErrorCode::kLimitExceeded);
  EXPECT_EQ(CodeOf("[1,2,3]", 32, 4), ErrorCode::kOk);
  EXPECT_EQ(CodeOf("[1,2,3]", 32, 3), ErrorCode::kLimitExceeded);
}

TEST(JsonTree, TakesNineBytesForEachByteAtMost) {
  for (const char* piece : {"1", "[]", "{}", "\"\"", "{\"\":1}", ",", "::::", "[[[["}) {
    std::string text = "[";
    for (int i = 0; i < 1000; ++i) text += (i == 0 ? "" : ",") + std::string(piece);
    EXPECT_LE(JsonTreeBytes(text), 9 * text.size() + 16) << piece;
  }
}

}  // namespace
}  // namespace sluice
