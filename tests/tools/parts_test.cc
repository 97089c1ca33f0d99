// What is behind the verbs: sizes, tokens as text, perplexity, conversations, names of files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/program.h"
#include "tools/conversation.h"
#include "tools/exit_code.h"
#include "tools/model_cache.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/perplexity.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseSize, UnitsArePowersOf1024) {
  EXPECT_EQ(ParseSize("0"), 0u);
  EXPECT_EQ(ParseSize("512"), 512u);
  EXPECT_EQ(ParseSize("64K"), 65536u);
  EXPECT_EQ(ParseSize("3m"), 3145728u);
  EXPECT_EQ(ParseSize("1.5G"), 1610612736u);
  EXPECT_EQ(ParseSize("2T"), 2199023255552u);
  EXPECT_EQ(ParseSize("4GiB"), 4294967296u);
  EXPECT_EQ(ParseSize("4GB"), 4294967296u);
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "G", "-1", "+1", "1e3", "0x10", "1 G", "1GG", "1Gx", "1.2.3", "nan",
                           "inf", "1KM", "9223372036854775808", "8388608T"}) {
    EXPECT_EQ(ParseSize(text), std::nullopt) << text;
  }
}

TEST(FormatBytes, ThreeDigitsAndBinaryUnits) {
  EXPECT_EQ(FormatBytes(0), "0 bytes");
  EXPECT_EQ(FormatBytes(1023), "1023 bytes");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1048575), "1.00 MiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(FormatBytes(100u << 20), "100.0 MiB");
  EXPECT_THAT(FormatBytes(std::numeric_limits<uint64_t>::max()), HasSubstr("EiB"));
}

TEST(ExitCode, FollowsTheTable) {
  EXPECT_EQ(ExitCodeOf(Status()), 0);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kIo, "")), 1);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kCorrupt, "")), 1);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kNotFound, "")), 1);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kOutOfMemory, "")), 1);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kInvalidArgument, "")), 2);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kUnsupported, "")), 3);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kDoesNotFit, "")), 3);
  EXPECT_EQ(ExitCodeOf(Status(ErrorCode::kCancelled, "")), 130);
}

TEST(TokenLines, ReadsSeveralSpellings) {
  EXPECT_THAT(*ParseTokens("[1, 2,3]\n 4\t5"), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(*ParseTokens(" \n"), ElementsAre());
  EXPECT_EQ(FormatTokens({7, 0, 12}), "7 0 12");
}

TEST(TokenLines, RefusesWhatIsNoId) {
  for (const char* text : {"1 x", "-1", "2147483648", "1.5", "0x1"}) {
    EXPECT_EQ(ParseTokens(text).status().code(), ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(ParseTokenLines("1 2\n3\n").status().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(ParseTokenLines("\n\n").status().code(), ErrorCode::kInvalidArgument);
  const auto lines = ParseTokenLines("1 2\r\n\n3 4");
  ASSERT_TRUE(lines.ok());
  EXPECT_THAT(*lines, ElementsAre(ElementsAre(1, 2), ElementsAre(3, 4)));
}

std::vector<int32_t> Counting(size_t size) {
  std::vector<int32_t> ids(size);
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

TEST(Perplexity, WindowsAreWholeAndBeginWithBos) {
  const auto windows = PerplexityWindows(Counting(11), 1, 4, 0);
  ASSERT_TRUE(windows.ok());
  // The text with its BOS: 1 100 101 102 | 103 104 105 106 | 107 108 109 110.
  EXPECT_THAT(*windows, ElementsAre(ElementsAre(1, 100, 101, 102), ElementsAre(1, 104, 105, 106),
                                    ElementsAre(1, 108, 109, 110)));
  EXPECT_EQ(PerplexityWindows(Counting(11), 1, 4, 2)->size(), 2u);
}

TEST(Perplexity, WithoutBosNothingIsReplaced) {
  const auto windows = PerplexityWindows(Counting(7), std::nullopt, 4, 0);
  ASSERT_TRUE(windows.ok());
  EXPECT_THAT(*windows, ElementsAre(ElementsAre(100, 101, 102, 103)));
}

TEST(Perplexity, TextShorterThanAWindowIsRefused) {
  EXPECT_EQ(PerplexityWindows(Counting(3), std::nullopt, 4, 0).status().code(),
            ErrorCode::kInvalidArgument);
  EXPECT_TRUE(PerplexityWindows(Counting(3), 1, 4, 0).ok());  // with BOS it is one
  EXPECT_EQ(PerplexityWindows(Counting(9), 1, 3, 0).status().code(), ErrorCode::kInvalidArgument);
}

TEST(Perplexity, Scores255PositionsOf512) {
  int64_t first = -1, last = -1, count = 0;
  for (int64_t position = 0; position < 512; ++position) {
    if (!IsScored(position, 512)) continue;
    if (first < 0) first = position;
    last = position;
    ++count;
  }
  EXPECT_EQ(first, 256);
  EXPECT_EQ(last, 510);
  EXPECT_EQ(count, 255);
}

double LossOf(const std::vector<float>& logits, int32_t id) {
  NegativeLogLikelihood loss(id);
  loss.Add(0, logits);
  return loss.value();
}

TEST(Perplexity, LossOfKnownDistributions) {
  const std::vector<float> even(8, -3.0f);
  EXPECT_NEAR(LossOf(even, 5), std::log(8.0), 1e-12);
  // Far apart: exp would overflow without the maximum taken out.
  EXPECT_NEAR(LossOf({1000, 0}, 1), 1000, 1e-9);
  EXPECT_NEAR(LossOf({1000, 0}, 0), 0, 1e-9);
  EXPECT_NEAR(LossOf({0, 1000}, 0), 1000, 1e-9);
  PerplexitySum sum;
  ASSERT_TRUE(sum.Add(LossOf(even, 0)).ok());
  ASSERT_TRUE(sum.Add(LossOf({0, 0}, 1)).ok());
  EXPECT_NEAR(sum.perplexity(), 4, 1e-12);  // the geometric mean of 8 and 2
  EXPECT_EQ(sum.count(), 2);
}

TEST(Perplexity, LossIsTheSameHoweverARowIsDivided) {
  std::vector<float> row;
  for (int i = 0; i < 307; ++i) row.push_back(static_cast<float>(i * 7919 % 613) / 40);
  double sum = 0;
  for (float logit : row) sum += std::exp(static_cast<double>(logit));
  for (const int32_t id : {0, 1, 150, 306}) {
    const double whole = LossOf(row, id);
    EXPECT_NEAR(whole, std::log(sum) - row[static_cast<size_t>(id)], 1e-12);
    for (const size_t part : {1, 2, 16, 100, 306}) {
      NegativeLogLikelihood loss(id);
      for (size_t begin = 0; begin < row.size(); begin += part) {
        const size_t count = std::min(part, row.size() - begin);
        loss.Add(static_cast<int64_t>(begin), std::span(row).subspan(begin, count));
      }
      EXPECT_EQ(loss.value(), whole) << "parts of " << part;
    }
  }
}

TEST(Perplexity, WhatIsNotFiniteFails) {
  PerplexitySum sum;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(sum.Add(LossOf({0, nan, 1}, 0)).ok());
  EXPECT_FALSE(sum.Add(LossOf({nan, 0, 1}, 1)).ok());
  EXPECT_FALSE(sum.Add(LossOf({0, 1, nan}, 1)).ok());
  EXPECT_FALSE(sum.Add(LossOf({0, -infinity}, 1)).ok());
  EXPECT_FALSE(sum.Add(LossOf({-infinity, -infinity}, 1)).ok());
  EXPECT_FALSE(sum.Add(LossOf({0, infinity}, 0)).ok());
  EXPECT_FALSE(sum.Add(LossOf({0, infinity}, 1)).ok());
  EXPECT_FALSE(sum.Add(LossOf({0, 1}, 2)).ok()) << "an id that did not come";
  EXPECT_FALSE(sum.Add(LossOf({}, 0)).ok());
  EXPECT_EQ(sum.count(), 0);
  // Tokens that cannot come are no trouble to the others, wherever they are.
  EXPECT_NEAR(LossOf({-infinity, 0, 0, -infinity}, 1), std::log(2.0), 1e-12);
}

TEST(Conversation, UndoAndForgetAnswer) {
  Conversation conversation;
  EXPECT_FALSE(conversation.Undo());
  EXPECT_FALSE(conversation.ForgetAnswer());
  conversation.SetSystem("s");
  conversation.AddUser("a");
  conversation.AddAssistant("b");
  conversation.AddUser("c");
  conversation.AddAssistant("d");
  EXPECT_TRUE(conversation.ForgetAnswer());
  ASSERT_EQ(conversation.messages().size(), 4u);
  EXPECT_EQ(conversation.messages().back().content, "c");
  EXPECT_TRUE(conversation.Undo());
  EXPECT_EQ(conversation.messages().back().content, "b");
  EXPECT_TRUE(conversation.Undo());
  ASSERT_EQ(conversation.messages().size(), 1u);
  EXPECT_EQ(conversation.messages()[0].role, "system");
}

TEST(Conversation, JsonRoundTripKeepsEveryByteOfText) {
  Conversation conversation;
  conversation.SetSystem(
      "Sei h\xc3\xb6"
      "flich.");
  conversation.AddUser("line\nline \"quoted\" \\ \x01");
  conversation.AddAssistant("");
  const auto read = Conversation::FromJson(conversation.ToJson());
  ASSERT_TRUE(read.ok());
  const auto expected = conversation.messages(), actual = read->messages();
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].role, expected[i].role);
    EXPECT_EQ(actual[i].content, expected[i].content);
  }
}

TEST(Conversation, RefusesBadFiles) {
  for (
      const char* json :
      {"", "null", "[]", "{}", R"({"messages": 1})", R"({"messages": [1]})",
       R"({"messages": [{"role": "user"}]})", R"({"messages": [{"role": 1, "content": "x"}]})",
       R"({"messages": [{"role": "root", "content": "x"}]})",
       R"({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]})"}) {
    EXPECT_EQ(Conversation::FromJson(json).status().code(), ErrorCode::kCorrupt) << json;
  }
}

TEST(ModelCache, TellsSluiceFilesByTheirFirstBytes) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "a", "\x89SLUICE\nrest");
  WriteTestFile(scratch / "b", "\x89SLUICE");
  WriteTestFile(scratch / "c", "");
  EXPECT_TRUE(*IsSluiceFile(scratch / "a"));
  EXPECT_FALSE(*IsSluiceFile(scratch / "b"));
  EXPECT_FALSE(*IsSluiceFile(scratch / "c"));
  EXPECT_FALSE(*IsSluiceFile(scratch.path()));
  EXPECT_EQ(IsSluiceFile(scratch / "d").status().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace sluice
