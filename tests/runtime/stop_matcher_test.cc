#include "runtime/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace sluice {
namespace {

// What a look at the whole text says: the stop that ends first (the longest of several that end
// there), and the text before it.
struct Expected {
  std::string shown;
  std::string stop;
};

Expected LookAtWhole(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string found;
    for (const std::string& stop : stops) {
      if (stop.size() > found.size() && stop.size() <= end &&
          text.compare(end - stop.size(), stop.size(), stop) == 0) {
        found = stop;
      }
    }
    if (!found.empty()) return {text.substr(0, end - found.size()), found};
  }
  return {text, ""};
}

// Bytes at the end of `text` that could become a stop string.
size_t PossibleStart(const std::string& text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) {
    for (size_t size = 1; size < stop.size() && size <= text.size(); ++size) {
      if (text.compare(text.size() - size, size, stop, 0, size) == 0) {
        longest = std::max(longest, size);
      }
    }
  }
  return longest;
}

// Feeds `text` cut behind each byte i whose bit in `cuts` is set, and checks every step.
void CheckSplit(const std::string& text, const std::vector<std::string>& stops, uint64_t cuts) {
  SCOPED_TRACE(testing::Message() << "text " << text << ", cuts " << cuts);
  const Expected expected = LookAtWhole(text, stops);
  StopMatcher matcher(stops);
  std::string shown;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i + 1 < text.size() && (cuts >> i & 1) == 0) continue;
    shown += matcher.Append(text.substr(begin, i + 1 - begin));
    begin = i + 1;
    const std::string so_far = text.substr(0, begin);
    const Expected now = LookAtWhole(so_far, stops);
    ASSERT_EQ(matcher.stopped(), !now.stop.empty());
    const std::string can_be_shown =
        matcher.stopped() ? now.shown
                          : so_far.substr(0, so_far.size() - PossibleStart(so_far, stops));
    ASSERT_EQ(shown, can_be_shown);
  }
  shown += matcher.Finish();
  ASSERT_EQ(shown, expected.shown);
  ASSERT_EQ(matcher.stop_string(), expected.stop);
}

TEST(StopMatcher, EverySplitOfATextGivesTheSame) {
  const std::vector<std::vector<std::string>> kStops = {
      {},          {"</s>"},         {"ab"},          {"aab", "ab"}, {"abab"},
      {"aaa"},     {"b", "abba"},    {"abcab", "bc"}, {"", "a"},     {"x", "y"},
      {"aabaaab"}, {"cab", "abcab"}, {"\n\n", "b\n"},
  };
  const std::string kTexts[] = {"aabaaabaab", "abcabcabx", "ab</s>cd", "aaaa", "a\n\nb\n",
                                "</</s></",   "abba",      "bababab",  "</s",  "z"};
  for (const auto& stops : kStops) {
    for (const std::string& text : kTexts) {
      for (uint64_t cuts = 0; cuts < uint64_t{1} << (text.size() - 1); ++cuts) {
        CheckSplit(text, stops, cuts);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(StopMatcher, RandomTextsOverTwoLetters) {
  std::mt19937_64 random(11);
  const auto word = [&random](size_t max_size) {
    std::string text;
    for (size_t i = 1 + random() % max_size; i > 0; --i) text += "ab"[random() % 2];
    return text;
  };
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::string> stops;
    for (size_t j = random() % 4; j > 0; --j) stops.push_back(word(8));
    CheckSplit(word(40), stops, random());
    if (HasFatalFailure()) return;
  }
}

TEST(StopMatcher, ShowsTextAtOnceWhenNothingCanFollow) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.Append("hello E"), "hello ");
  EXPECT_EQ(matcher.Append("N"), "");
  EXPECT_EQ(matcher.Append("x"), "ENx");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, NothingFollowsAStop) {
  StopMatcher matcher({"."});
  EXPECT_EQ(matcher.Append("a.b"), "a");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.stop_string(), ".");
  EXPECT_EQ(matcher.Append("c.d"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcher, FinishGivesWhatWasHeldBackOnce) {
  StopMatcher matcher({"<|end|>"});
  EXPECT_EQ(matcher.Append("x<|en"), "x");
  EXPECT_EQ(matcher.Finish(), "<|en");
  EXPECT_EQ(matcher.Finish(), "");
  EXPECT_EQ(matcher.stop_string(), "");
}

TEST(StopMatcher, AStopOfSeveralBytesPerCharacterIsNotCut) {
  StopMatcher matcher({"終了"});
  EXPECT_EQ(matcher.Append("は終"), "は");
  EXPECT_EQ(matcher.Append("り"), "終り");
  EXPECT_EQ(matcher.Append("終"), "");
  EXPECT_EQ(matcher.Append("了x"), "");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, ALongStopInALongTextTakesLinearTime) {
  const std::string stop = std::string(100'000, 'a') + "b";
  StopMatcher matcher({stop});
  size_t shown = 0;
  for (int i = 0; i < 1000; ++i) shown += matcher.Append(std::string(1000, 'a')).size();
  EXPECT_EQ(shown, 1'000'000u - 100'000u);
  matcher.Append("b");
  EXPECT_TRUE(matcher.stopped());
}

}  // namespace
}  // namespace sluice
