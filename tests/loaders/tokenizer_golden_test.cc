// Ids and texts that the PyPI package `tokenizers` 0.23 gives
// (tests/golden/make_tokenizer_golden.py).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Ids = std::vector<int32_t>;

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class TokenizerGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::ifstream file(std::string(SLUICE_TEST_DATA_DIR) + "/golden/tokenizer/" + GetParam() +
                       ".json");
    golden_ = nlohmann::json::parse(file, nullptr, false);
    ASSERT_TRUE(golden_.is_object());
    ASSERT_GT(golden_["cases"].size(), 40u);
  }

  Tokenizer Load() {
    const std::string json = golden_["tokenizer"].dump();
    Result<Tokenizer> tokenizer = Tokenizer::FromHuggingFace({json, {}, {}, {}, {}});
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    return *tokenizer;
  }

  void ExpectSameIds(const Tokenizer& tokenizer) {
    for (const auto& item : golden_["cases"]) {
      const std::string text = FromHex(item["text"]);
      const auto ids = [&](bool parse_special, bool add_special) {
        Result<Ids> result = tokenizer.Encode(text, parse_special, add_special);
        EXPECT_TRUE(result.ok()) << result.status().message();
        return result.ok() ? *result : Ids{-1};
      };
      EXPECT_EQ(ids(false, false), item["user"].get<Ids>()) << text;
      EXPECT_EQ(ids(true, false), item["parsed"].get<Ids>()) << text;
      EXPECT_EQ(ids(true, true), item["special"].get<Ids>()) << text;
    }
  }

  nlohmann::json golden_;
};

TEST_P(TokenizerGolden, IdsEqualThoseOfTokenizers) { ExpectSameIds(Load()); }

TEST_P(TokenizerGolden, IdsAreTheSameAfterOwnJson) {
  Result<Tokenizer> again = Tokenizer::FromJson(Load().ToJson());
  ASSERT_TRUE(again.ok()) << again.status().message();
  EXPECT_EQ(again->ToJson(), Load().ToJson());
  ExpectSameIds(*again);
}

TEST_P(TokenizerGolden, DecodedTextEqualsThatOfTokenizers) {
  const Tokenizer tokenizer = Load();
  for (const auto& item : golden_["decode"]) {
    const auto ids = item["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.Decode(ids, false), item["all"].get<std::string>());
    EXPECT_EQ(tokenizer.Decode(ids, true), item["plain"].get<std::string>());
  }
}

TEST_P(TokenizerGolden, IncrementsOfTheDetokenizerJoinToTheDecodedText) {
  const Tokenizer tokenizer = Load();
  for (const auto& item : golden_["decode"]) {
    Detokenizer detokenizer(tokenizer, true);
    std::string text;
    for (const int32_t id : item["ids"].get<Ids>()) text += detokenizer.Append(id);
    text += detokenizer.Finish();
    EXPECT_EQ(text, item["plain"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("gpt2", "gpt2_prefix_space", "smollm", "llama3",
                                         "llama3_merges", "qwen2", "qwen2_flags", "o200k", "kimi",
                                         "deepseek", "possessive", "falcon", "behaviors", "syntax",
                                         "superbpe", "afmoe", "llama2", "llama2_flags", "mistral",
                                         "gemma", "metaspace_bpe", "characters", "t5",
                                         "unigram_bytes", "unigram_whole", "charsmap"),
                         [](const auto& info) { return info.param; });

TEST(TokenizerGoldenFiles, AreAllInTheListAbove) {
  const std::filesystem::directory_iterator files(std::string(SLUICE_TEST_DATA_DIR) +
                                                  "/golden/tokenizer");
  EXPECT_EQ(std::distance(begin(files), end(files)), 26);
}

}  // namespace
}  // namespace sluice
