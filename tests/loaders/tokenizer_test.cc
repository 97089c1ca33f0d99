// The tokenizer's own behaviour, on a vocabulary small enough to know the ids by hand: the bytes
// 0..255 in the order of the byte alphabet's code points, then merges, then added tokens.
#include "loaders/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

constexpr int kBytes = 256;

// Byte-level BPE that splits as GPT-2 does. Merges get the ids from 256 on.
Json MakeTokenizer(const std::vector<std::pair<std::string, std::string>>& merges,
                   const Json& added = Json::array()) {
  Json vocabulary;
  int32_t id = 0;
  for (char32_t code = 0; code < 0x144; ++code) {
    const bool printable = (code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code != 0xAD);
    if (!printable) continue;
    std::string text;
    AppendUtf8(code, &text);
    vocabulary[text] = id++;
  }
  EXPECT_EQ(id, kBytes);
  Json list = Json::array();
  for (const auto& [left, right] : merges) {
    vocabulary[left + right] = id++;
    list.push_back(left + " " + right);
  }
  return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"added_tokens", added}};
}

Json Special(const std::string& content) {
  return {{"id", 0}, {"content", content}, {"special", true}, {"normalized", false}};
}

Result<Tokenizer> Load(const Json& json) {
  const std::string text = json.dump();
  return Tokenizer::FromHuggingFace({text, {}, {}, {}, {}});
}

Ids Encode(const Tokenizer& tokenizer, std::vector<TokenizerText> runs, bool add_special = false) {
  Result<Ids> ids = tokenizer.Encode(runs, add_special);
  EXPECT_TRUE(ids.ok()) << ids.status().message();
  return ids.ok() ? *ids : Ids{-1};
}

// "!" is byte 0x21 and the first of the alphabet.
int32_t ByteId(char c) { return c - '!'; }

class SmallTokenizer : public testing::Test {
 protected:
  SmallTokenizer()
      : tokenizer_(*Load(MakeTokenizer(
            {{"a", "b"}, {"ab", "c"}, {"b", "c"}},
            Json::array({Special("<s>"), Special("</s>"), Special("<|im_end|>")})))) {}
  static constexpr int32_t kAb = 256, kAbc = 257, kBos = 259, kEnd = 261;
  Tokenizer tokenizer_;
};

TEST_F(SmallTokenizer, MergesByRankAndThenFromTheLeft) {
  EXPECT_EQ(Encode(tokenizer_, {{"abc", false}}), (Ids{kAbc}));
  EXPECT_EQ(Encode(tokenizer_, {{"bcab", false}}), (Ids{258, kAb}));
  EXPECT_EQ(Encode(tokenizer_, {{"", false}}), Ids{});
  EXPECT_EQ(Encode(tokenizer_, {}), Ids{});
}

TEST_F(SmallTokenizer, SpecialTextOfAUserIsOrdinaryText) {
  const Ids user = Encode(tokenizer_, {{"<s>", false}});
  EXPECT_EQ(user, (Ids{ByteId('<'), ByteId('s'), ByteId('>')}));
  EXPECT_EQ(Encode(tokenizer_, {{"<s>", true}}), (Ids{kBos}));
  EXPECT_EQ(Encode(tokenizer_, {{"<s>", true}, {"<s>", false}, {"<|im_end|>", true}}),
            (Ids{kBos, user[0], user[1], user[2], kEnd}));
}

TEST_F(SmallTokenizer, AUserCannotCompleteOrSwallowASpecialToken) {
  const Ids ordinary = Encode(tokenizer_, {{"<s>", false}});
  EXPECT_EQ(Encode(tokenizer_, {{"<s", true}, {">", false}}), ordinary);
  EXPECT_EQ(Encode(tokenizer_, {{"<", false}, {"s>", true}}), ordinary);
  EXPECT_EQ(Encode(tokenizer_, {{"<s", true}, {"", false}, {">", true}}), (Ids{kBos}));
  // The user's "<|im_" must not hide the token that follows.
  const Ids ids = Encode(tokenizer_, {{"<|im_", false}, {"<|im_end|>", true}});
  EXPECT_EQ(ids.back(), kEnd);
  EXPECT_EQ(ids.size(), 6u);
}

TEST_F(SmallTokenizer, OrdinaryWordsContinueAcrossRuns) {
  EXPECT_EQ(Encode(tokenizer_, {{"a", true}, {"b", false}, {"c", true}}), (Ids{kAbc}));
}

TEST_F(SmallTokenizer, IllFormedTextReadsAsReplacementCharacters) {
  EXPECT_EQ(Encode(tokenizer_, {{"\xF0\x9F\x98 \xFF", false}}),
            Encode(tokenizer_, {{"\uFFFD \uFFFD", false}}));
  // A character cut in two by runs is ill-formed in both.
  EXPECT_EQ(Encode(tokenizer_, {{"\xC3", false}, {"\xA9", false}}),
            Encode(tokenizer_, {{"\uFFFD\uFFFD", false}}));
}

TEST_F(SmallTokenizer, TokenBytesAreTheRawBytes) {
  EXPECT_EQ(tokenizer_.TokenBytes(kAbc), "abc");
  EXPECT_EQ(tokenizer_.TokenBytes(kBos), "<s>");
  EXPECT_EQ(tokenizer_.TokenBytes(*tokenizer_.Find("\u0120")), " ");
  EXPECT_EQ(tokenizer_.TokenBytes(-1), "");
  EXPECT_EQ(tokenizer_.TokenBytes(tokenizer_.vocab_size()), "");
  EXPECT_EQ(tokenizer_.vocab_size(), 262);
  EXPECT_EQ(tokenizer_.Find("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer_.Find(""), std::nullopt);
}

TEST_F(SmallTokenizer, DecodePassesOverSpecialTokensAndUnknownIds) {
  const Ids ids = {kBos, kAbc, 99999, -5, kEnd};
  EXPECT_EQ(tokenizer_.Decode(ids, false), "<s>abc<|im_end|>");
  EXPECT_EQ(tokenizer_.Decode(ids, true), "abc");
  EXPECT_TRUE(tokenizer_.IsSpecial(kBos));
  EXPECT_FALSE(tokenizer_.IsSpecial(kAbc));
  EXPECT_FALSE(tokenizer_.IsSpecial(-1));
}

TEST_F(SmallTokenizer, DetokenizerHoldsBackPartsOfACharacter) {
  const Ids smile = Encode(tokenizer_, {{"\U0001F600", false}});
  ASSERT_EQ(smile.size(), 4u);
  Detokenizer detokenizer(tokenizer_, true);
  EXPECT_EQ(detokenizer.Append(ByteId('x')), "x");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(detokenizer.Append(smile[static_cast<size_t>(i)]), "");
  EXPECT_EQ(detokenizer.Append(smile[3]), "\U0001F600");
  EXPECT_EQ(detokenizer.Append(smile[0]), "");
  EXPECT_EQ(detokenizer.Append(kBos), "");
  EXPECT_EQ(detokenizer.Append(ByteId('y')), "\uFFFDy");
  EXPECT_EQ(detokenizer.Append(smile[0]), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(Tokenizer, AddedTokensAreFoundLongestFirst) {
  Json word = Special("<s>x");
  word["special"] = false;
  const Tokenizer t = *Load(MakeTokenizer({}, Json::array({Special("<s>"), word})));
  EXPECT_EQ(Encode(t, {{"<s>x<s>", true}}), (Ids{257, 256}));
  // A token that is not special is found in a user's text too.
  EXPECT_EQ(Encode(t, {{"<s>x", false}}), (Ids{257}));
}

Json WithBos(const char* name) {
  Json json = MakeTokenizer({}, Json::array({Special("<s>"), Special("</s>")}));
  json["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single",
                             {{{"SpecialToken", {{"id", name}, {"type_id", 0}}}},
                              {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
                            {"special_tokens", {{name, {{"id", name}, {"ids", {256}}}}}}};
  return json;
}

TEST(Tokenizer, AddsTheBosOnceOnly) {
  const Tokenizer t = *Load(WithBos("<s>"));
  EXPECT_EQ(Encode(t, {{"!", false}}, true), (Ids{256, 0}));
  EXPECT_EQ(Encode(t, {{"!", false}}, false), (Ids{0}));
  EXPECT_EQ(Encode(t, {{"<s>!", true}}, true), (Ids{256, 0}));
  EXPECT_EQ(Encode(t, {{"", false}}, true), (Ids{256}));
  // What a user writes does not count as the BOS.
  EXPECT_EQ(Encode(t, {{"<s>", false}}, true), (Ids{256, ByteId('<'), ByteId('s'), ByteId('>')}));
}

TEST(Tokenizer, ReadsTheSmallFilesBesideTokenizerJson) {
  const std::string json = WithBos("<s>").dump();
  const auto load = [&json](std::string_view config, std::string_view map, std::string_view gen,
                            std::string_view model) {
    return *Tokenizer::FromHuggingFace({json, config, map, gen, model});
  };
  const Tokenizer plain = load("", "", "", "");
  EXPECT_EQ(plain.bos_id(), std::nullopt);
  EXPECT_TRUE(plain.eos_ids().empty());

  const Tokenizer full = load(R"({"bos_token":{"content":"<s>"},"eos_token":"</s>"})", "",
                              R"({"eos_token_id":[7,257,99999]})", R"({"eos_token_id":8})");
  EXPECT_EQ(full.bos_id(), 256);
  EXPECT_EQ(full.eos_ids(), (Ids{257, 7, 8}));
  EXPECT_TRUE(full.adds_bos());
  EXPECT_FALSE(full.adds_eos());

  const Tokenizer with_images =
      load("", "", "", R"({"text_config":{"eos_token_id":[9,7]},"vision_config":{}})");
  EXPECT_EQ(with_images.eos_ids(), (Ids{9, 7}));

  const Tokenizer map = load("", R"({"bos_token":"<s>","eos_token":"</s>"})", "", "");
  EXPECT_EQ(map.bos_id(), 256);
  EXPECT_EQ(map.eos_ids(), (Ids{257}));

  // transformers 5: these two flags overrule the post-processor.
  const Tokenizer flags =
      load(R"({"bos_token":"<s>","eos_token":"</s>","add_bos_token":false,"add_eos_token":true})",
           "", "", "");
  EXPECT_EQ(Encode(flags, {{"!", false}}, true), (Ids{0, 257}));

  const Tokenizer null_bos = load(R"({"bos_token":null})", "", "", R"({"bos_token_id":256})");
  EXPECT_EQ(null_bos.bos_id(), std::nullopt);
  EXPECT_EQ(load("", "", "", R"({"bos_token_id":256})").bos_id(), 256);
  EXPECT_FALSE(Tokenizer::FromHuggingFace({json, "[]", "", "", ""}).ok());
  EXPECT_FALSE(Tokenizer::FromHuggingFace({json, R"({"bos_token":7})", "", "", ""}).ok());
}

TEST(Tokenizer, TokensOfTokenizerConfigAreAdded) {
  const std::string json = MakeTokenizer({}).dump();
  Result<Tokenizer> t = Tokenizer::FromHuggingFace(
      {json,
       R"({"added_tokens_decoder":{"257":{"content":"<b>","special":true,"normalized":false},
           "256":{"content":"<a>","special":true,"normalized":false}},"eos_token":"<c>"})",
       "", "", ""});
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->Find("<a>"), 256);
  EXPECT_EQ(t->Find("<b>"), 257);
  EXPECT_EQ(t->eos_ids(), (Ids{258}));
  EXPECT_EQ(Encode(*t, {{"<b><c>", true}}), (Ids{257, 258}));
}

TEST(Tokenizer, MissingCharactersBecomeTheUnknownToken) {
  Json json = MakeTokenizer({{"a", "b"}});
  json["model"]["vocab"].erase("x");
  EXPECT_EQ(Encode(*Load(json), {{"axb", false}}), (Ids{256}));
  json["model"]["unk_token"] = "!";
  EXPECT_EQ(Encode(*Load(json), {{"axxb", false}}), (Ids{ByteId('a'), 0, 0, ByteId('b')}));
  json["model"]["fuse_unk"] = true;
  EXPECT_EQ(Encode(*Load(json), {{"axxb", false}}), (Ids{ByteId('a'), 0, ByteId('b')}));
  json["model"]["unk_token"] = "absent";
  EXPECT_FALSE(Load(json).ok());
}

TEST(Tokenizer, IgnoreMergesTakesTheWholeWord) {
  Json json = MakeTokenizer({{"a", "b"}});
  json["model"]["vocab"]["abc"] = 257;
  EXPECT_EQ(Encode(*Load(json), {{"abc", false}}), (Ids{256, ByteId('c')}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(Encode(*Load(json), {{"abc", false}}), (Ids{257}));
}

// One class of 2^17 characters is one word; quadratic merging would take minutes.
TEST(Tokenizer, RunsOf128KiBMergeQuickly) {
  const Tokenizer t = *Load(MakeTokenizer(
      {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"\u0120", "\u0120"}, {"a", "b"}}));
  const size_t size = 1 << 17;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Encode(t, {{std::string(size, 'a'), false}}), Ids(size / 8, 258));
  EXPECT_EQ(Encode(t, {{std::string(size, ' '), false}}), Ids(size / 2, 259));
  EXPECT_EQ(Encode(t, {{std::string(size, '\n'), false}}), Ids(size, *t.Find("\u010A")));
  EXPECT_EQ(Encode(t, {{std::string(size, '7'), false}}), Ids(size, ByteId('7')));
  EXPECT_EQ(Encode(t, {{std::string(size, ' ') + "b", false}}).size(), size / 2 + 2);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

// Without a pre-tokenizer a whole text is one word.
TEST(Tokenizer, RunsOf128KiBOfTextTokensAreQuick) {
  const size_t size = 1 << 17;
  const Json escape = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  const Json decoder = {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}}}};
  const Json models[] = {
      {{"type", "BPE"},
       {"byte_fallback", true},
       {"unk_token", "<unk>"},
       {"vocab", {{"<unk>", 0}, {"\u2581", 1}, {"a", 2}, {"\u2581\u2581", 3}, {"aa", 4}}},
       {"merges", {"\u2581 \u2581", "a a"}}},
      {{"type", "Unigram"},
       {"unk_id", 0},
       {"vocab",
        Json::array({Json::array({"<unk>", 0}), Json::array({"\u2581", -2}), Json::array({"a", -2}),
                     Json::array({"\u2581\u2581", -3}), Json::array({"aa", -3})})}},
  };
  for (const Json& model : models) {
    const Json json = {{"model", model}, {"normalizer", escape}, {"decoder", decoder}};
    Result<Tokenizer> t = Load(json);
    ASSERT_TRUE(t.ok()) << t.status().message();
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(Encode(*t, {{std::string(size, ' '), false}}), Ids(size / 2, 3));
    EXPECT_EQ(Encode(*t, {{std::string(size, 'a'), false}}), Ids(size / 2, 4));
    EXPECT_EQ(Encode(*t, {{std::string(size, 'z') + "a", false}}).back(), 2);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  }
}

TEST(Tokenizer, NamesTheKindThatItDoesNotSupport) {
  const auto message = [](const char* section, const Json& component) {
    Json json = MakeTokenizer({});
    json[section] = component;
    Result<Tokenizer> t = Load(json);
    EXPECT_FALSE(t.ok());
    EXPECT_EQ(t.status().code(), ErrorCode::kUnsupported) << t.status().message();
    return t.ok() ? std::string() : t.status().message();
  };
  EXPECT_NE(message("model", {{"type", "WordPiece"}}).find("WordPiece"), std::string::npos);
  EXPECT_NE(message("normalizer", {{"type", "BertNormalizer"}}).find("BertNormalizer"),
            std::string::npos);
  EXPECT_NE(message("pre_tokenizer", {{"type", "UnicodeScripts"}}).find("UnicodeScripts"),
            std::string::npos);
  EXPECT_NE(message("decoder", {{"type", "WordPiece"}}).find("WordPiece"), std::string::npos);
  EXPECT_NE(message("post_processor", {{"type", "Odd"}}).find("Odd"), std::string::npos);
  for (const char* option : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    Json json = MakeTokenizer({});
    json["model"][option] = "##";
    Result<Tokenizer> t = Load(json);
    EXPECT_EQ(t.status().code(), ErrorCode::kUnsupported);
    EXPECT_NE(t.status().message().find(option), std::string::npos);
  }
  Json deep = {{"type", "ByteLevel"}};
  for (int i = 0; i < 100; ++i) deep = {{"type", "Sequence"}, {"pretokenizers", {deep}}};
  message("pre_tokenizer", deep);
}

}  // namespace
}  // namespace sluice
