// UTF-8, Unicode and the byte alphabet below the tokenizer.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "loaders/tokenizer/byte_level.h"
#include "loaders/tokenizer/unicode.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

std::string Repaired(std::string_view text) {
  std::string out;
  AppendRepairedUtf8(text, &out);
  return out;
}

constexpr const char* kBad = "\uFFFD";

std::string Bad(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += kBad;
  return text;
}

// The examples of the Unicode Standard, chapter 3.9, tables 3-8 to 3-11.
TEST(Utf8, EachMaximalSubpartBecomesOneReplacement) {
  EXPECT_EQ(Repaired("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), Bad(8) + "A");
  EXPECT_EQ(Repaired("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), Bad(8) + "A");
  EXPECT_EQ(Repaired("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), Bad(5) + "A" + Bad(2) + "B");
  EXPECT_EQ(Repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), Bad(4) + "A");
}

TEST(Utf8, WellFormedTextStaysAsItIs) {
  const std::string text("\x00z\x7F\u0080\u07FF\u0800\uD7FF\uE000\uFFFF\U00010000\U0010FFFF", 27);
  EXPECT_TRUE(IsValidUtf8(text));
  EXPECT_EQ(Repaired(text), text);
  EXPECT_EQ(Repaired(""), "");
}

TEST(Utf8, ATruncatedCharacterIsKnownAsSuch) {
  EXPECT_TRUE(DecodeUtf8("\xF0\x9F\x98", 0).truncated);
  EXPECT_TRUE(DecodeUtf8("\xE2", 0).truncated);
  EXPECT_FALSE(DecodeUtf8("\xF0\x80", 0).truncated);
  EXPECT_FALSE(DecodeUtf8("\xFF", 0).truncated);
}

TEST(ByteLevel, EveryByteHasItsOwnCharacter) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  std::string spelled;
  AppendByteLevel(all, &spelled);
  EXPECT_TRUE(IsValidUtf8(spelled));
  EXPECT_EQ(BytesOfByteLevel(spelled), all);
  std::string space;
  AppendByteLevel(" \n\x7F\xAD!", &space);
  EXPECT_EQ(space, "\u0120\u010A\u0121\u0143!");
  EXPECT_EQ(BytesOfByteLevel(" "), std::nullopt);
  EXPECT_EQ(BytesOfByteLevel("\u0144"), std::nullopt);
}

TEST(Normalization, ComposesAcrossTheEdgeOfAscii) {
  EXPECT_EQ(NormalizeUnicode("abe\u0301fe", NormalizationForm::kNfc), "ab\u00e9fe");
  EXPECT_EQ(NormalizeUnicode("<\u0338", NormalizationForm::kNfc), "\u226e");
  EXPECT_EQ(NormalizeUnicode("\u0301a", NormalizationForm::kNfc), "\u0301a");
  EXPECT_EQ(NormalizeUnicode("", NormalizationForm::kNfc), "");
}

// Cases of the Unicode NormalizationTest: blocked marks, Hangul, exclusions, compatibility.
TEST(Normalization, FollowsTheAnnex) {
  const auto nfc = [](std::string_view text) {
    return NormalizeUnicode(text, NormalizationForm::kNfc);
  };
  EXPECT_EQ(nfc("a\u0315\u0300\u05ae\u0062"), "\u00e0\u05ae\u0315b");
  EXPECT_EQ(nfc("a\u0323\u0301"), "\u1ea1\u0301");
  EXPECT_EQ(nfc("a\u0301\u0323"), "\u1ea1\u0301");
  EXPECT_EQ(nfc("\u1100\u1161\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\uac00\u11a8"), "\uac01");
  EXPECT_EQ(nfc("\u0958"), "\u0915\u093c");
  EXPECT_EQ(nfc("\u212b"), "\u00c5");
  EXPECT_EQ(NormalizeUnicode("\ufb01\u00c5", NormalizationForm::kNfkd), "fiA\u030a");
  EXPECT_EQ(NormalizeUnicode("\u1e9b\u0323", NormalizationForm::kNfkc), "\u1e69");
  EXPECT_EQ(NormalizeUnicode("\u1e9b\u0323", NormalizationForm::kNfd), "\u017f\u0323\u0307");
}

TEST(Normalization, MarksAddedAfterUnicode9StayInPlace) {
  EXPECT_EQ(NormalizeUnicode("a\u1df8\u0323", NormalizationForm::kNfc), "a\u1df8\u0323");
}

TEST(Normalization, LongRunsOfMarksInTheWrongOrderAreQuick) {
  std::string text = "a";
  for (int i = 0; i < 100'000; ++i) text += "\u0301";
  for (int i = 0; i < 100'000; ++i) text += "\u0323";
  const auto begin = std::chrono::steady_clock::now();
  const std::string result = NormalizeUnicode(text, NormalizationForm::kNfc);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(result.substr(0, 5), "\u1ea1\u0323");
  EXPECT_EQ(result.size(), 400'001u);
}

// Normalization in `tokenizers` is of Unicode 9; utf8proc knows these Cyrillic letters of
// Unicode 15.
TEST(Normalization, LettersOfUnicode15DoNotDecompose) {
  EXPECT_EQ(NormalizeUnicode("\U0001E03F", NormalizationForm::kNfkd), "\U0001E03F");
}

TEST(Accents, AreMarksOfUnicode9) {
  EXPECT_TRUE(IsAccent(0x301));
  EXPECT_TRUE(IsAccent(0x93F));
  EXPECT_FALSE(IsAccent(0x11943));  // Unicode 13
  EXPECT_TRUE(IsAccent(0x1CF2));    // a letter since Unicode 12
  EXPECT_TRUE(IsAccent(0x1CF3));
  EXPECT_FALSE(IsAccent(0x1CF1));
  EXPECT_FALSE(IsAccent('a'));
}

TEST(Lowercase, GoesCharacterByCharacter) {
  EXPECT_EQ(LowercaseUnicode("\u0130A\u00c4\u03a3\u1e9e"), "i\u0307a\u00e4\u03c3\u00df");
}

}  // namespace
}  // namespace sluice
