// tokenizer.model: ids and texts that the PyPI package `sentencepiece` 0.2.3 gives
// (tests/golden/make_tokenizer_golden.py), and damaged models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "loaders/tokenizer/base64.h"
#include "loaders/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Ids = std::vector<int32_t>;

Result<Tokenizer> Load(const std::string& model) {
  HuggingFaceTokenizerFiles files;
  files.sentencepiece_model = model;
  return Tokenizer::FromHuggingFace(files);
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class SentencePieceGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::ifstream file(std::string(SLUICE_TEST_DATA_DIR) + "/golden/sentencepiece/" + GetParam() +
                       ".json");
    golden_ = nlohmann::json::parse(file, nullptr, false);
    ASSERT_TRUE(golden_.is_object());
    ASSERT_GT(golden_["cases"].size(), 40u);
    Result<Tokenizer> t = Load(*DecodeBase64(golden_["model"].get<std::string>()));
    ASSERT_TRUE(t.ok()) << t.status().message();
    tokenizer_.push_back(*t);
    Result<Tokenizer> again = Tokenizer::FromJson(t->ToJson());
    ASSERT_TRUE(again.ok()) << again.status().message();
    tokenizer_.push_back(*again);
  }
  nlohmann::json golden_;
  std::vector<Tokenizer> tokenizer_;  // from the model, and from its own JSON
};

TEST_P(SentencePieceGolden, IdsEqualThoseOfSentencePiece) {
  for (const Tokenizer& t : tokenizer_) {
    for (const auto& item : golden_["cases"]) {
      const std::string text = FromHex(item["text"]);
      Result<Ids> ids = t.Encode(text, false, false);
      ASSERT_TRUE(ids.ok()) << ids.status().message();
      EXPECT_EQ(*ids, item["ids"].get<Ids>()) << text;
    }
  }
}

TEST_P(SentencePieceGolden, DecodedTextAndItsIncrementsEqualThoseOfSentencePiece) {
  for (const Tokenizer& t : tokenizer_) {
    for (const auto& item : golden_["cases"]) {
      const Ids ids = item["known"].get<Ids>();
      EXPECT_EQ(t.Decode(ids, false), item["decoded"].get<std::string>());
      Detokenizer detokenizer(t, false);
      std::string text;
      for (const int32_t id : ids) text += detokenizer.Append(id);
      EXPECT_EQ(text + detokenizer.Finish(), item["decoded"].get<std::string>());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SentencePieceGolden,
                         testing::Values("bpe_llama", "bpe_gemma", "unigram_identity"),
                         [](const auto& info) { return info.param; });

// A model by hand: <unk> <s> </s>, the characters and merges of "ab", bytes of U+00E9.
std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Number(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}
std::string Bytes(int field, const std::string& bytes) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(bytes.size()) + bytes;
}
std::string Piece(const std::string& text, float score, uint64_t type) {
  const auto bits = std::bit_cast<uint32_t>(score);
  std::string number;
  for (int i = 0; i < 4; ++i) number.push_back(static_cast<char>(bits >> (8 * i) & 0xFF));
  return Bytes(1, Bytes(1, text) + Varint(2 << 3 | 5) + number + Number(3, type));
}
std::string Pieces() {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3) + Piece("<0xC3>", 0, 6) +
         Piece("<0xA9>", 0, 6) + Piece("a", -3, 1) + Piece("b", -4, 1) + Piece("\u2581", -5, 1) +
         Piece("ab", -1, 1) + Piece("\u2581a", -2, 1);
}
std::string Trainer(uint64_t type) { return Bytes(2, Number(3, type) + Number(35, 1)); }
const char kPlain[] = {0x20, 0};  // remove_extra_whitespaces = false
std::string Plain() { return Bytes(3, std::string(kPlain, 2)); }

TEST(SentencePieceModel, TheBestScoreMergesFirstAndBytesStandForUnknownCharacters) {
  Result<Tokenizer> t = Load(Pieces() + Trainer(2) + Plain());
  ASSERT_TRUE(t.ok()) << t.status().message();
  // "▁ab": "ab" (-1) before "▁a" (-2).
  EXPECT_EQ(*t->Encode("ab", false, false), (Ids{7, 8}));
  EXPECT_EQ(*t->Encode("a\u00e9", false, false), (Ids{9, 3, 4}));
  EXPECT_EQ(*t->Encode("aza", false, false), (Ids{9, 0, 5}));
  EXPECT_EQ(*t->Encode("a", false, true), (Ids{1, 9}));
  EXPECT_EQ(*t->Encode("<s>a", true, true), (Ids{1, 9}));
  EXPECT_EQ(*t->Encode("", false, false), Ids{});
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_ids(), (Ids{2}));
}

// What old checkpoints have beside tokenizer.model, where there is no other file of tokens.
TEST(SentencePieceModel, TokensOfAddedTokensJsonAreAddedInTheOrderOfTheirIds) {
  const std::string model = Pieces() + Trainer(2) + Plain();
  HuggingFaceTokenizerFiles files;
  files.sentencepiece_model = model;
  files.added_tokens_json = R"({"[PAD]":11,"<img>":10,"ab":8})";
  files.special_tokens_map_json = R"({"eos_token":"[PAD]"})";
  Result<Tokenizer> t = Tokenizer::FromHuggingFace(files);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->Find("<img>"), 10);
  EXPECT_EQ(t->Find("[PAD]"), 11);
  EXPECT_EQ(t->vocab_size(), 12);
  EXPECT_EQ(*t->Encode("a<img>", true, false), (Ids{9, 10}));
  EXPECT_THAT(t->eos_ids(), testing::Contains(11));
  // tokenizer_config.json says all, where it says anything.
  files.tokenizer_config_json = R"({"added_tokens_decoder":{"10":{"content":"[PAD]"}}})";
  t = Tokenizer::FromHuggingFace(files);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->Find("<img>"), std::nullopt);
  EXPECT_EQ(t->Find("[PAD]"), 10);
  files.tokenizer_config_json = "";
  for (const char* bad : {"[]", R"({"x":"y"})", R"({"x":-1})", R"({"x":1.5})", "{"}) {
    files.added_tokens_json = bad;
    const Status status = Tokenizer::FromHuggingFace(files).status();
    EXPECT_EQ(status.code(), ErrorCode::kCorrupt) << bad;
    EXPECT_NE(status.message().find("added_tokens.json"), std::string::npos) << status.message();
  }
}

TEST(SentencePieceModel, AUnigramModelTakesTheGreatestSum) {
  Result<Tokenizer> t = Load(Pieces() + Trainer(1) + Plain());
  ASSERT_TRUE(t.ok()) << t.status().message();
  // "\u2581" "ab" and "\u2581a" "b" are both -6: of the tokens that end there the one that begins
  // first was found first, and only a greater sum replaces it.
  EXPECT_EQ(*t->Encode("aba", false, false), (Ids{7, 8, 5}));
  EXPECT_EQ(*t->Encode("bab", false, false), (Ids{7, 6, 8}));
  EXPECT_EQ(*t->Encode("a", false, true), (Ids{9, 2}));
}

TEST(SentencePieceModel, ContinuedTextKeepsItsFirstSpace) {
  Result<Tokenizer> t = Load(Pieces() + Trainer(2) + Plain());
  ASSERT_TRUE(t.ok());
  Detokenizer begins(*t, true);
  EXPECT_EQ(begins.Append(9), "a");
  Detokenizer continues(*t, true, /*at_start=*/false);
  EXPECT_EQ(continues.Append(9), " a");
}

TEST(SentencePieceModel, BytesWaitForTheEndOfTheirRun) {
  Result<Tokenizer> t = Load(Pieces() + Trainer(2) + Plain());
  ASSERT_TRUE(t.ok());
  Detokenizer d(*t, true);
  EXPECT_EQ(d.Append(3), "");
  EXPECT_EQ(d.Append(4), "");
  EXPECT_EQ(d.Append(5), "\u00e9a");
  EXPECT_EQ(d.Append(3), "");
  EXPECT_EQ(d.Append(5), "\uFFFDa");
  EXPECT_EQ(d.Append(4), "");
  EXPECT_EQ(d.Finish(), "\uFFFD");
}

TEST(SentencePieceModel, RefusesDamage) {
  const std::string good = Pieces() + Trainer(2) + Plain();
  struct Damage {
    const char* what;
    std::string model;
  };
  const std::string eleven(11, '\xFF');
  const Damage damages[] = {
      {"empty", ""},
      {"no pieces", Trainer(2)},
      {"varint without end", good + "\xFF"},
      {"varint of more than 64 bits", good + eleven},
      {"tenth byte of a varint above one", good + "\x08" + std::string(9, '\xFF') + "\x02"},
      {"field number zero", good + std::string("\0\0", 2)},
      {"length beyond the file", good + "\x0A\x7F"},
      {"length of 2^32", good + "\x0A" + Varint(uint64_t{1} << 32)},
      {"length of 2^64 - 1", good + "\x0A" + Varint(~uint64_t{0})},
      {"piece that is a number", good + Number(1, 5)},
      {"group", good + "\x0B"},
      {"wire type 7", good + "\x0F"},
      {"text that is a number", good + Bytes(1, Number(1, 3))},
      {"score that is a varint", good + Bytes(1, Bytes(1, "x") + Number(2, 3))},
      {"type 7", good + Piece("x", 0, 7)},
      {"type 2^32 + 1", good + Piece("x", 0, (uint64_t{1} << 32) + 1)},
      {"the same piece twice", good + Piece("ab", 0, 1)},
      {"text that is not UTF-8", good + Piece("\xFF", 0, 1)},
      {"infinite score", good + Piece("x", std::numeric_limits<float>::infinity(), 1)},
      {"score that is no number", good + Piece("x", std::numeric_limits<float>::quiet_NaN(), 1)},
      {"word model", Pieces() + Trainer(3)},
      {"character model", Pieces() + Trainer(4)},
      {"id of 2^40", good + Bytes(2, Number(40, uint64_t{1} << 40))},
      {"suffix whitespace", good + Bytes(2, Number(24, 1))},
      {"denormalizer", good + Bytes(5, Bytes(2, "abcd"))},
      {"character map of 3 bytes", good + Bytes(3, Bytes(2, "abc"))},
      {"character map with a trie beyond it", good + Bytes(3, Bytes(2, "\x08\x01\x01\x01zzzz"))},
      {"character map with half a unit", good + Bytes(3, Bytes(2, std::string("\x02\0\0\0zz", 6)))},
      {"token of more than 1,024 bytes", good + Piece(std::string(2000, 'x'), 0, 3)},
  };
  ASSERT_TRUE(Load(good).ok());
  for (const Damage& damage : damages) {
    Result<Tokenizer> t = Load(damage.model);
    EXPECT_FALSE(t.ok()) << damage.what;
    if (!t.ok()) {
      EXPECT_TRUE(t.status().code() == ErrorCode::kCorrupt ||
                  t.status().code() == ErrorCode::kUnsupported ||
                  t.status().code() == ErrorCode::kLimitExceeded)
          << damage.what;
    }
  }
}

TEST(SentencePieceModel, EveryPrefixIsAnErrorOrAModel) {
  const std::string good = Pieces() + Trainer(2) + Plain();
  for (size_t size = 0; size < good.size(); ++size) {
    Result<Tokenizer> t = Load(good.substr(0, size));
    if (!t.ok()) continue;
    Result<Ids> ids = t->Encode("ab", false, false);
    if (ids.ok()) {
      EXPECT_LE(ids->size(), 4u) << size;
    }
  }
}

// Every unit of the trie has the label 0 and leads to itself or beyond the trie.
TEST(SentencePieceModel, ACyclicCharacterMapEnds) {
  std::string map("\x00\x04\x00\x00", 4);
  for (int unit = 0; unit < 256; ++unit) {
    map += std::string{static_cast<char>(unit), '\x05', '\x00', '\x00'};
  }
  Result<Tokenizer> t = Load(Pieces() + Trainer(2) + Bytes(3, Bytes(2, map)));
  if (!t.ok()) return;
  EXPECT_TRUE(t->Encode(std::string(100'000, 'a'), false, false).ok());
}

}  // namespace
}  // namespace sluice
