// Renderings of jinja2, made by tests/golden/make_chat_template_golden.py.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support/chat_template_case.h"

namespace sluice {
namespace {

nlohmann::ordered_json ReadGolden(const std::string& name) {
  std::ifstream file(std::string(SLUICE_TEST_DATA_DIR) + "/golden/chat_template/" + name + ".json");
  return nlohmann::ordered_json::parse(file);
}

// Text, or the error with its code's name in front.
struct Rendered {
  bool ok = false;
  std::string text;
};

Rendered Render(const std::string& source, const nlohmann::ordered_json& input) {
  Result<ChatTemplate> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return {false, parsed.status().message()};
  const auto runs = parsed->Render(ChatTemplateInputFromJson(input));
  if (!runs.ok()) return {false, runs.status().message()};
  return {true, JoinRuns(*runs)};
}

class ConstructsTest : public testing::TestWithParam<const char*> {};

TEST_P(ConstructsTest, RenderAsJinjaDoes) {
  const nlohmann::ordered_json golden = ReadGolden(GetParam());
  ASSERT_GT(golden.at("constructs").size(), 20u);
  for (const auto& construct : golden.at("constructs")) {
    SCOPED_TRACE(construct.at("name").get<std::string>());
    const Rendered result = Render(construct.at("template"), golden.at("case"));
    EXPECT_EQ(result.ok, construct.contains("text")) << result.text;
    if (result.ok && construct.contains("text")) {
      EXPECT_EQ(result.text, construct.at("text").get<std::string>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConstructsTest,
                         testing::Values("whitespace", "statements", "expressions", "functions"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ChatTemplateGolden, SmolLm2RendersAsJinjaDoes) {
  const nlohmann::ordered_json golden = ReadGolden("smollm2");
  ASSERT_EQ(golden.at("cases").size(), 9u);
  int rendered = 0;
  for (const auto& entry : golden.at("cases")) {
    SCOPED_TRACE(entry.at("name").get<std::string>());
    const Rendered result = Render(golden.at("template"), entry.at("input"));
    EXPECT_EQ(result.ok, entry.contains("text")) << result.text;
    if (result.ok && entry.contains("text")) {
      EXPECT_EQ(result.text, entry.at("text").get<std::string>());
      ++rendered;
    }
  }
  EXPECT_GE(rendered, 8);
}

}  // namespace
}  // namespace sluice
