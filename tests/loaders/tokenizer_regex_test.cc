// Expressions in Oniguruma's syntax; what Oniguruma gives was established with `tokenizers`' Split.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "loaders/tokenizer/regex.h"
#include "loaders/tokenizer/regex_syntax.h"

namespace sluice {
namespace {

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  Result<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return {"error: " + regex.status().message()};
  RegexScanner scanner(*regex, text);
  RegexMatch match;
  std::vector<std::string> found;
  while (true) {
    Result<bool> next = scanner.Next(&match);
    if (!next.ok()) return {"error: " + next.status().message()};
    if (!*next) return found;
    found.emplace_back(text.substr(match.begin, match.end - match.begin));
  }
}

ErrorCode CompileError(std::string_view pattern) {
  Result<Regex> regex = Regex::Compile(pattern);
  return regex.ok() ? ErrorCode::kOk : regex.status().code();
}

using List = std::vector<std::string>;

TEST(OnigurumaSyntax, DollarAndCaretMatchAtLineEnds) {
  EXPECT_EQ(Matches("a$", "a\na"), (List{"a", "a"}));
  EXPECT_EQ(Matches("^a", "a\na\n"), (List{"a", "a"}));
  EXPECT_EQ(Matches("a.b", "a\nb a b"), (List{"a b"}));
  EXPECT_EQ(Matches("(?m:a.b)", "a\nb"), (List{"a\nb"}));
}

TEST(OnigurumaSyntax, ContractionsMatchTheLongSToo) {
  EXPECT_EQ(Matches("(?i:'s)", "x'\u017f x'S"), (List{"'\u017f", "'S"}));
}

TEST(OnigurumaSyntax, WhiteSpaceLeavesOutTheMongolianVowelSeparator) {
  EXPECT_EQ(Matches(R"(\s+)",
                    "a\u180eb\x1c"
                    "c\u0085d\u200be\u3000 "),
            (List{"\u0085", "\u3000 "}));
  EXPECT_EQ(Matches(R"([^\S\n]+)", "a \n\u00a0b"), (List{" ", "\u00a0"}));
}

TEST(OnigurumaSyntax, WordCharactersIncludeMarksAndCircledLetters) {
  EXPECT_EQ(Matches(R"(\w+)", "a\u0301b \u24b6 \u200d \u203f \u00b2 _ -"),
            (List{"a\u0301b", "\u24b6", "\u203f", "\u00b2", "_"}));
  EXPECT_EQ(Matches(R"(\W+)", "ab, c"), (List{", "}));
  EXPECT_EQ(Matches(R"(\b.\b)", "ab c"), (List{" ", "c"}));
}

TEST(OnigurumaSyntax, IntervalsAreNeverPossessive) {
  EXPECT_EQ(Matches("[0-9]{1,3}+", "1234567"), (List{"1234567"}));
  EXPECT_EQ(Matches("a{,2}", "xaaay"), (List{"", "aa", "a", ""}));
  EXPECT_EQ(Matches("a{2}?b", "aab b"), (List{"aab", "b"}));
  EXPECT_EQ(Matches("a{x", "a{x"), (List{"a{x"}));
  EXPECT_EQ(Matches("x++x", "xxx"), List{});
}

TEST(OnigurumaSyntax, ClassesNestAndIntersect) {
  EXPECT_EQ(Matches(R"([\p{L}&&[^\p{Han}]]+)", "ab\u6f22\u5b57c"), (List{"ab", "c"}));
  EXPECT_EQ(Matches("[^a-c&&[b-z]]+", "abcdxyz!"), (List{"a", "dxyz!"}));
  EXPECT_EQ(Matches("[a[x-z]]+", "axbz"), (List{"ax", "z"}));
  EXPECT_EQ(Matches("[]a]+", "x]a"), (List{"]a"}));
  EXPECT_EQ(Matches("[a\\-z]+", "a-zb"), (List{"a-z"}));
}

TEST(OnigurumaSyntax, ScriptsDoNotIncludeSharedCharacters) {
  EXPECT_EQ(Matches(R"(\p{Han}+)", "\u3001\u3007\u6f22\u30fc"), (List{"\u3007\u6f22"}));
}

TEST(OnigurumaSyntax, PunctuationDependsOnHowItIsWritten) {
  EXPECT_EQ(Matches("[[:punct:]]+", "a$+<.\u3002\u20ac~b"), (List{"$+<.\u3002\u20ac~"}));
  EXPECT_EQ(Matches(R"(\p{Punct}+)", "a$+<.\u3002\u20ac~b"), (List{".\u3002"}));
}

TEST(OnigurumaSyntax, EscapesOfRuby) {
  EXPECT_EQ(Matches(R"(\h+)", "abxyz"), (List{"ab"}));
  EXPECT_EQ(Matches(R"(\v)", "a\x0b\n"), (List{"\x0b"}));
  EXPECT_EQ(Matches(R"(\u0041)", "xAy"), (List{"A"}));
  EXPECT_EQ(Matches(R"(\x{1F600})", "\U0001F600"), (List{"\U0001F600"}));
}

TEST(OnigurumaSyntax, NamesWhatItCannotTranslate) {
  EXPECT_EQ(CompileError(R"(\y)"), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError("(?~a)"), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError("a(?i)b|c"), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError(R"(\p{Nonsense})"), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError(R"((?<=a+)b)"), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError("\\C"), ErrorCode::kUnsupported);
}

TEST(OnigurumaSyntax, RefusesMalformedExpressions) {
  for (const char* pattern : {"(", ")", "[", "[a", "*a", "\\", "[b-a]", "\\x{110000}", "\\x{d800}",
                              "[a&&]", "(?#", "(?<a", "\\p{L", "\\uABC", "\xff"}) {
    EXPECT_EQ(CompileError(pattern), ErrorCode::kCorrupt) << pattern;
  }
  EXPECT_EQ(CompileError(std::string(200, '(')), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError(std::string(200, '[')), ErrorCode::kUnsupported);
  EXPECT_EQ(CompileError(std::string(1 << 17, 'a')), ErrorCode::kUnsupported);
}

TEST(RegexScanner, PassesOverAnEmptyMatchBehindAMatch) {
  EXPECT_EQ(Matches("x*", "axxb"), (List{"", "xx", ""}));
  EXPECT_EQ(Matches("", "\u00e9"), (List{"", ""}));
  EXPECT_EQ(Matches("a", ""), List{});
}

TEST(RegexScanner, CatastrophicBacktrackingIsAnErrorValue) {
  Result<Regex> regex = Regex::Compile(R"((?:(?:a|aa)+)+$)");
  ASSERT_TRUE(regex.ok()) << regex.status().message();
  const std::string text = std::string(200, 'a') + "b";
  RegexScanner scanner(*regex, text);
  RegexMatch match;
  Result<bool> found = scanner.Next(&match);
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.status().code(), ErrorCode::kLimitExceeded);
}

TEST(RegexScanner, RecursionDeeperThanTheJitStackStillMatches) {
  Result<Regex> regex = Regex::Compile(R"((?:ab?)+)");
  ASSERT_TRUE(regex.ok());
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "ab";
  RegexScanner scanner(*regex, text);
  RegexMatch match;
  Result<bool> found = scanner.Next(&match);
  ASSERT_TRUE(found.ok()) << found.status().message();
  EXPECT_EQ(match.end, text.size());
}

}  // namespace
}  // namespace sluice
