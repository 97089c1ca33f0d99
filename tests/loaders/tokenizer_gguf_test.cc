#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Ids = std::vector<int32_t>;

// Digits 0..9, space, letters a..d, "ab", two control tokens, one token of the user's.
GgufTokenizerFields Fields(const std::string& pre) {
  GgufTokenizerFields fields;
  fields.model = "gpt2";
  fields.pre = pre;
  fields.tokens = {"0", "1",  "2",  "3",      "4",         "5",          "6",
                   "7", "8",  "9",  "\u0120", "a",         "b",          "c",
                   "d", "ab", "12", "123",    "<|begin|>", "<|im_end|>", "<tool>"};
  fields.token_types.assign(fields.tokens.size(), 1);
  fields.token_types[18] = fields.token_types[19] = 3;
  fields.token_types[20] = 4;
  fields.merges = {"a b", "1 2", "12 3"};
  fields.bos_id = 18;
  fields.eos_id = 19;
  return fields;
}

Tokenizer Load(const GgufTokenizerFields& fields) {
  Result<Tokenizer> tokenizer = Tokenizer::FromGguf(fields);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

TEST(GgufTokenizer, TheNameDecidesHowDigitsSplit) {
  EXPECT_EQ(*Load(Fields("gpt-2")).Encode("1231", false, false), (Ids{17, 1}));
  EXPECT_EQ(*Load(Fields("smollm")).Encode("1231", false, false), (Ids{1, 2, 3, 1}));
  EXPECT_EQ(*Load(Fields("llama-bpe")).Encode("1231", false, false), (Ids{17, 1}));
  EXPECT_EQ(*Load(Fields("qwen2")).Encode("1231", false, false), (Ids{1, 2, 3, 1}));
  EXPECT_EQ(*Load(Fields("")).Encode("1231", false, false), (Ids{17, 1}));
}

TEST(GgufTokenizer, EveryKnownNameLoads) {
  for (const char* name : {"default",
                           "gpt-2",
                           "phi-2",
                           "mpt",
                           "olmo",
                           "starcoder",
                           "refact",
                           "smollm",
                           "codeshell",
                           "exaone",
                           "command-r",
                           "falcon",
                           "llama3",
                           "llama-v3",
                           "llama-bpe",
                           "falcon3",
                           "pixtral",
                           "dbrx",
                           "smaug-bpe",
                           "chatglm-bpe",
                           "glm4",
                           "qwen2",
                           "deepseek-r1-qwen",
                           "stablelm2",
                           "hunyuan",
                           "qwen35",
                           "minicpm5",
                           "seed-coder",
                           "bailingmoe",
                           "exaone-moe",
                           "gpt-4o",
                           "llama4",
                           "minimax-m2",
                           "tekken",
                           "kimi-k2",
                           "bloom",
                           "viking",
                           "deepseek-v3",
                           "deepseek-llm",
                           "deepseek-coder",
                           "granite-embed-multi-97m",
                           "tiny_aya",
                           "cohere2moe",
                           "ufakzeka",
                           "laguna",
                           "youtu",
                           "spark2_5",
                           "hy_v4",
                           "roberta-bpe",
                           "chameleon",
                           "jais-2",
                           "afmoe",
                           "superbpe"}) {
    EXPECT_EQ(*Load(Fields(name)).Encode("ab", false, false), (Ids{15})) << name;
  }
}

// Digits are grouped in threes from the right: "12345" is "12" and "345".
TEST(GgufTokenizer, SuperBpeAndAfmoeGroupDigitsFromTheRight) {
  for (const char* name : {"superbpe", "afmoe"}) {
    GgufTokenizerFields fields = Fields(name);
    fields.tokens = {"1", "2", "3", "4", "5", "12", "34", "45", "123", "345", "45x"};
    fields.token_types.assign(fields.tokens.size(), 1);
    fields.merges = {"1 2", "4 5", "12 3", "3 45"};
    fields.bos_id.reset();
    fields.eos_id.reset();
    EXPECT_EQ(*Load(fields).Encode("12345", false, false), (Ids{5, 9})) << name;
    EXPECT_EQ(*Load(fields).Encode("123", false, false), (Ids{8})) << name;
    EXPECT_EQ(*Load(fields).Encode("1345", false, false), (Ids{0, 9})) << name;
  }
}

TEST(GgufTokenizer, AnUnknownNameOrModelIsNamed) {
  for (const char* name : {"no-such-model", "gpt-2 phi-2", " ", "gpt"}) {
    Result<Tokenizer> tokenizer = Tokenizer::FromGguf(Fields(name));
    ASSERT_FALSE(tokenizer.ok()) << name;
    EXPECT_EQ(tokenizer.status().code(), ErrorCode::kUnsupported);
    EXPECT_NE(tokenizer.status().message().find(name), std::string::npos);
  }
  GgufTokenizerFields fields = Fields("gpt-2");
  fields.model = "bert";
  EXPECT_EQ(Tokenizer::FromGguf(fields).status().code(), ErrorCode::kUnsupported);
}

TEST(GgufTokenizer, ControlTokensAreSpecialAndUserDefinedOnesAreNot) {
  const Tokenizer t = Load(Fields("gpt-2"));
  EXPECT_TRUE(t.IsSpecial(18));
  EXPECT_FALSE(t.IsSpecial(20));
  EXPECT_EQ(*t.Encode("<tool>", false, false), (Ids{20}));
  EXPECT_EQ(*t.Encode("a<|im_end|>", true, false), (Ids{11, 19}));
  EXPECT_EQ(t.bos_id(), 18);
  EXPECT_EQ(t.eos_ids(), (Ids{19}));
}

TEST(GgufTokenizer, AddsABosAsTheFileOrElseTheNameSays) {
  EXPECT_EQ(*Load(Fields("gpt-2")).Encode("a", false, true), (Ids{11}));
  EXPECT_EQ(*Load(Fields("llama-bpe")).Encode("a", false, true), (Ids{18, 11}));
  GgufTokenizerFields fields = Fields("llama-bpe");
  fields.add_bos = false;
  fields.add_eos = true;
  EXPECT_EQ(*Load(fields).Encode("a", false, true), (Ids{11, 19}));
}

TEST(GgufTokenizer, TheEndsOfATurnAreAllCollected) {
  GgufTokenizerFields fields = Fields("gpt-2");
  fields.eos_id = 18;
  fields.eot_id = 13;
  EXPECT_EQ(Load(fields).eos_ids(), (Ids{18, 13, 19}));
}

TEST(GgufTokenizer, RefusesDamage) {
  const auto expect_corrupt = [](const GgufTokenizerFields& fields, const char* what) {
    Result<Tokenizer> tokenizer = Tokenizer::FromGguf(fields);
    ASSERT_FALSE(tokenizer.ok()) << what;
    EXPECT_EQ(tokenizer.status().code(), ErrorCode::kCorrupt) << what;
  };
  GgufTokenizerFields fields = Fields("gpt-2");
  fields.tokens.clear();
  expect_corrupt(fields, "no tokens");
  fields = Fields("gpt-2");
  fields.token_types.pop_back();
  expect_corrupt(fields, "types");
  fields = Fields("gpt-2");
  fields.tokens[1] = "0";
  expect_corrupt(fields, "duplicate");
  fields = Fields("gpt-2");
  fields.tokens[1] = "\xFF";
  expect_corrupt(fields, "UTF-8");
  for (const char* merge : {"ab", "a z", "b a", " b", "a ", "a  b"}) {
    fields = Fields("gpt-2");
    fields.merges = {merge};
    expect_corrupt(fields, merge);
  }
  for (const int64_t id : {int64_t{-1}, int64_t{21}, int64_t{1} << 40}) {
    fields = Fields("gpt-2");
    fields.eos_id = id;
    expect_corrupt(fields, "EOS");
  }
}

// A vocabulary of SentencePiece: model "llama" merges by score, "t5" is a unigram model.
GgufTokenizerFields SentencePieceOf(const std::string& model) {
  GgufTokenizerFields fields;
  fields.model = model;
  fields.tokens = {"<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "b", "ab", "\u2581a", "<tool>"};
  fields.scores = {0, 0, 0, 0, -5, -3, -4, -1, -2, 0};
  fields.token_types = {2, 3, 3, 6, 1, 1, 1, 1, 1, 4};
  return fields;
}

TEST(GgufTokenizer, ALlamaVocabularyMergesByScoreAndAddsABosAndASpace) {
  const Tokenizer t = Load(SentencePieceOf("llama"));
  EXPECT_EQ(*t.Encode("ab", false, true), (Ids{1, 4, 7}));
  EXPECT_EQ(*t.Encode("a\na", false, false), (Ids{8, 3, 5}));
  // After a token the text begins anew.
  EXPECT_EQ(*t.Encode("<tool>a", false, false), (Ids{9, 8}));
  EXPECT_EQ(*t.Encode("a</s>", true, false), (Ids{8, 2}));
  EXPECT_EQ(*t.Encode("<s>a", true, true), (Ids{1, 8}));
  EXPECT_EQ(t.eos_ids(), (Ids{2}));
  EXPECT_EQ(t.Decode(Ids{8, 3, 5}, false), "a\na");
  GgufTokenizerFields fields = SentencePieceOf("llama");
  fields.add_space_prefix = false;
  fields.add_bos = false;
  EXPECT_EQ(*Load(fields).Encode("ab", false, true), (Ids{7}));
}

TEST(GgufTokenizer, AT5VocabularyTakesTheGreatestSumAndAddsAnEos) {
  GgufTokenizerFields fields = SentencePieceOf("t5");
  fields.eos_id = 2;
  fields.unknown_id = 0;
  const Tokenizer t = Load(fields);
  EXPECT_EQ(*t.Encode("bab", false, true), (Ids{4, 6, 7, 2}));
}

TEST(GgufTokenizer, RefusesAVocabularyWhoseScoresDoNotFit) {
  for (const char* model : {"llama", "t5"}) {
    GgufTokenizerFields fields = SentencePieceOf(model);
    fields.scores.pop_back();
    EXPECT_EQ(Tokenizer::FromGguf(fields).status().code(), ErrorCode::kCorrupt);
    fields = SentencePieceOf(model);
    fields.token_types.clear();
    EXPECT_EQ(Tokenizer::FromGguf(fields).status().code(), ErrorCode::kCorrupt);
    fields = SentencePieceOf(model);
    fields.treat_whitespace_as_suffix = true;
    EXPECT_EQ(Tokenizer::FromGguf(fields).status().code(), ErrorCode::kUnsupported);
    fields = SentencePieceOf(model);
    fields.precompiled_charsmap = "x";
    EXPECT_EQ(Tokenizer::FromGguf(fields).status().code(), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace sluice
