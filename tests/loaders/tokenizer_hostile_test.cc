// Damaged and hostile descriptions: each is an error value, and none takes memory that it did not
// bring.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

Json Compact() {
  return {{"version", 1},
          {"kind", "byte_level_bpe"},
          {"tokens", {"a", "b", "ab", "<s>"}},
          {"merges", {0, 1}},
          {"pre_tokenizer", {{{"kind", "byte_level"}, {"behavior", "isolated"}, {"words", true}}}},
          {"added_tokens", {{{"id", 3}, {"special", true}}}},
          {"prefix", {3}},
          {"eos", {3}},
          {"bos", 3}};
}

Json HuggingFace() {
  return {{"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}},
            {"merges", Json::array({"a b"})}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}}};
}

Result<Tokenizer> LoadHuggingFace(const Json& json) {
  const std::string text = json.dump();
  return Tokenizer::FromHuggingFace({text, {}, {}, {}, {}});
}

struct Damage {
  const char* what;
  std::function<void(Json*)> apply;
};

TEST(StoredTokenizer, IsReadAsItWasMeant) {
  Result<Tokenizer> t = Tokenizer::FromJson(Compact().dump());
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(*t->Encode("abba", false, true), (std::vector<int32_t>{3, 2, 1, 0}));
}

TEST(StoredTokenizer, RefusesDamage) {
  const Damage damages[] = {
      {"version", [](Json* j) { (*j)["version"] = 2; }},
      {"no version", [](Json* j) { j->erase("version"); }},
      {"kind", [](Json* j) { (*j)["kind"] = "unigram"; }},
      {"no tokens", [](Json* j) { j->erase("tokens"); }},
      {"token types", [](Json* j) { (*j)["tokens"][1] = 5; }},
      {"duplicate token", [](Json* j) { (*j)["tokens"][1] = "a"; }},
      {"odd merges", [](Json* j) { (*j)["merges"].push_back(0); }},
      {"negative merge",
       [](Json* j) {
         (*j)["merges"] = {-1, 1};
       }},
      {"merge out of range",
       [](Json* j) {
         (*j)["merges"] = {0, 4};
       }},
      {"merge without result",
       [](Json* j) {
         (*j)["merges"] = {1, 0};
       }},
      {"merge of fractions",
       [](Json* j) {
         (*j)["merges"] = {0.5, 1};
       }},
      {"merge id of 2^32",
       [](Json* j) {
         (*j)["merges"] = {uint64_t{1} << 32, 1};
       }},
      {"bos", [](Json* j) { (*j)["bos"] = 4; }},
      {"eos",
       [](Json* j) {
         (*j)["eos"] = {0, 99};
       }},
      {"prefix", [](Json* j) { (*j)["prefix"] = {4}; }},
      {"suffix", [](Json* j) { (*j)["suffix"] = "x"; }},
      {"unknown", [](Json* j) { (*j)["unknown"] = 2147483647; }},
      {"added id", [](Json* j) { (*j)["added_tokens"][0]["id"] = 4; }},
      {"added twice",
       [](Json* j) {
         (*j)["added_tokens"].push_back({{"id", 3}});
       }},
      {"added flag", [](Json* j) { (*j)["added_tokens"][0]["special"] = "yes"; }},
      {"steps", [](Json* j) { (*j)["pre_tokenizer"] = Json::array(); }},
      {"step kind", [](Json* j) { (*j)["pre_tokenizer"][0]["kind"] = "x"; }},
      {"step behavior", [](Json* j) { (*j)["pre_tokenizer"][0].erase("behavior"); }},
      {"step type", [](Json* j) { (*j)["pre_tokenizer"][0] = 1; }},
      {"expression",
       [](Json* j) {
         (*j)["pre_tokenizer"].push_back(
             {{"kind", "split"}, {"behavior", "isolated"}, {"regex", true}, {"pattern", "("}});
       }},
      {"empty pattern",
       [](Json* j) {
         (*j)["pre_tokenizer"].push_back({{"kind", "split"}, {"behavior", "isolated"}});
       }},
      {"long added token", [](Json* j) { (*j)["tokens"][3] = std::string(2000, 'x'); }},
  };
  for (const Damage& damage : damages) {
    Json json = Compact();
    damage.apply(&json);
    Result<Tokenizer> t = Tokenizer::FromJson(json.dump());
    EXPECT_FALSE(t.ok()) << damage.what;
    if (!t.ok()) {
      EXPECT_TRUE(t.status().code() == ErrorCode::kCorrupt ||
                  t.status().code() == ErrorCode::kUnsupported ||
                  t.status().code() == ErrorCode::kLimitExceeded)
          << damage.what;
      EXPECT_FALSE(t.status().message().empty());
    }
  }
}

TEST(StoredTokenizer, RefusesEveryPrefixOfItself) {
  const std::string json = Compact().dump();
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_FALSE(Tokenizer::FromJson(json.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(Tokenizer::FromJson(std::string(1 << 20, '[')).ok());
  EXPECT_FALSE(Tokenizer::FromJson("null").ok());
  EXPECT_FALSE(Tokenizer::FromJson("{\"tokens\":[\"\xff\"]}").ok());
}

TEST(HuggingFaceTokenizer, RefusesDamage) {
  const Damage damages[] = {
      {"no model", [](Json* j) { j->erase("model"); }},
      {"no vocabulary", [](Json* j) { (*j)["model"].erase("vocab"); }},
      {"negative id", [](Json* j) { (*j)["model"]["vocab"]["c"] = -1; }},
      {"id of 10^9", [](Json* j) { (*j)["model"]["vocab"]["c"] = 1'000'000'000; }},
      {"two tokens of one id", [](Json* j) { (*j)["model"]["vocab"]["c"] = 0; }},
      {"merge of one", [](Json* j) { (*j)["model"]["merges"] = {"ab"}; }},
      {"merge of three", [](Json* j) { (*j)["model"]["merges"] = {"a b c"}; }},
      {"merge of numbers",
       [](Json* j) {
         (*j)["model"]["merges"] = {{0, 1}};
       }},
      {"merge of absent", [](Json* j) { (*j)["model"]["merges"] = {"a z"}; }},
      {"merge to absent", [](Json* j) { (*j)["model"]["merges"] = {"b a"}; }},
      {"no merges", [](Json* j) { (*j)["model"].erase("merges"); }},
      {"added tokens", [](Json* j) { (*j)["added_tokens"] = 7; }},
      {"added token", [](Json* j) { (*j)["added_tokens"] = {7}; }},
      {"added token without content",
       [](Json* j) {
         (*j)["added_tokens"] = {{{"id", 3}}};
       }},
      {"added token without id",
       [](Json* j) {
         (*j)["added_tokens"] = {{{"content", "<s>"}}};
       }},
      {"added token with the id 2^31",
       [](Json* j) {
         (*j)["added_tokens"] = {{{"content", "<s>"}, {"id", uint64_t{1} << 31}}};
       }},
      {"added token with a negative id",
       [](Json* j) {
         (*j)["added_tokens"] = {{{"content", "<s>"}, {"id", -1}}};
       }},
      {"id of 2^31", [](Json* j) { (*j)["model"]["vocab"]["c"] = uint64_t{1} << 31; }},
      {"id as text", [](Json* j) { (*j)["model"]["vocab"]["c"] = "3"; }},
      {"no decoder", [](Json* j) { j->erase("decoder"); }},
      {"no pre-tokenizer", [](Json* j) { j->erase("pre_tokenizer"); }},
      {"two byte levels",
       [](Json* j) {
         const Json one = (*j)["pre_tokenizer"];
         (*j)["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {one, one}}};
       }},
      {"template id",
       [](Json* j) {
         (*j)["post_processor"] = {
             {"type", "TemplateProcessing"},
             {"single", {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}}},
             {"special_tokens", {{"x", {{"ids", {99}}}}}}};
       }},
  };
  ASSERT_TRUE(LoadHuggingFace(HuggingFace()).ok());
  for (const Damage& damage : damages) {
    Json json = HuggingFace();
    damage.apply(&json);
    EXPECT_FALSE(LoadHuggingFace(json).ok()) << damage.what;
  }
}

TEST(HuggingFaceTokenizer, RefusesATokenThatTheVocabularyNamesTwice) {
  std::string text = HuggingFace().dump();
  const size_t at = text.find(R"("a":0)");
  text.insert(at, R"("a":5,)");
  const Status status = Tokenizer::FromHuggingFace({text, {}, {}, {}, {}}).status();
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_NE(status.message().find("'a' appears twice"), std::string::npos) << status.message();
}

TEST(HuggingFaceTokenizer, RefusesMoreThanItsMemoryAllows) {
  const std::string text = HuggingFace().dump();
  HuggingFaceTokenizerFiles files{text, {}, {}, {}, {}};
  EXPECT_TRUE(Tokenizer::FromHuggingFace(files).ok());
  files.max_memory_bytes = 100;
  EXPECT_EQ(Tokenizer::FromHuggingFace(files).status().code(), ErrorCode::kDoesNotFit);
}

TEST(HuggingFaceTokenizer, RefusesTokensOutOfProportionToTheFile) {
  // An id far away would make room for all ids before it.
  Json json = HuggingFace();
  json["model"]["vocab"]["z"] = 1045;
  EXPECT_FALSE(LoadHuggingFace(json).ok());
  json["model"]["vocab"]["z"] = 1000;
  EXPECT_TRUE(LoadHuggingFace(json).ok());
  std::string stored = R"({"version":1,"kind":"byte_level_bpe","tokens":["a")";
  for (int i = 0; i < 100'000; ++i) stored += ",\"\"";
  stored += R"(],"pre_tokenizer":[{"kind":"byte_level","behavior":"isolated"}]})";
  EXPECT_EQ(Tokenizer::FromJson(stored).status().code(), ErrorCode::kLimitExceeded);
}

TEST(HuggingFaceTokenizer, CyclicMergesEndAnyway) {
  // "ab" + "a" and "a" + "ba": each result is a part of another rule.
  Json json = HuggingFace();
  json["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}, {"ba", 3}, {"aba", 4}};
  json["model"]["merges"] = {"a b", "b a", "ab a", "a ba"};
  Result<Tokenizer> t = LoadHuggingFace(json);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->Decode(*t->Encode("abababab", false, false), false), "abababab");
}

TEST(HuggingFaceTokenizer, ANormalizerThatExplodesIsAnErrorValue) {
  Json json = HuggingFace();
  Json steps = Json::array();
  for (int i = 0; i < 40; ++i) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  }
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
  Result<Tokenizer> t = LoadHuggingFace(json);
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->Encode("a", false, false).status().code(), ErrorCode::kLimitExceeded);
}

TEST(HuggingFaceTokenizer, GapsInTheVocabularyAreNoTokens) {
  Json json = HuggingFace();
  json["model"]["vocab"]["z"] = 40;
  Result<Tokenizer> t = LoadHuggingFace(json);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->vocab_size(), 41);
  EXPECT_EQ(t->TokenBytes(20), "");
  const std::vector<int32_t> ids = {0, 20, 40};
  EXPECT_EQ(t->Decode(ids, false), "az");
}

}  // namespace
}  // namespace sluice
