#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "runtime/exp.h"
#include "runtime/random.h"

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Nothing but a plain draw from the softmax.
SamplingOptions PlainDraw() {
  SamplingOptions options;
  options.temperature = 1.0f;
  options.top_k = 0;
  options.top_p = 1.0f;
  options.min_p = 0.0f;
  options.seed = 7;
  return options;
}

SamplingOptions Greedy() {
  SamplingOptions options = PlainDraw();
  options.temperature = 0.0f;
  return options;
}

std::vector<float> LogitsOf(const std::vector<double>& probabilities, double shift = 0) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

int32_t GreedyChoice(const SamplingOptions& options, const std::vector<float>& logits,
                     const std::vector<int32_t>& history = {}) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  for (const int32_t token : history) sampler.Accept(token);
  const Result<SampledToken> token = sampler.Sample(logits);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? token->id : -1;
}

std::vector<int64_t> CountDraws(const SamplingOptions& options, const std::vector<float>& logits,
                                int draws) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  std::vector<int64_t> counts(logits.size(), 0);
  for (int i = 0; i < draws; ++i) {
    const Result<SampledToken> token = sampler.Sample(logits);
    EXPECT_TRUE(token.ok());
    if (token.ok()) ++counts[static_cast<size_t>(token->id)];
  }
  return counts;
}

// Pearson's statistic; an outcome of probability 0 must not occur.
double ChiSquare(const std::vector<int64_t>& counts, const std::vector<double>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double draws =
      static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  double statistic = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = draws * weights[i] / total;
    if (expected == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    const double difference = static_cast<double>(counts[i]) - expected;
    statistic += difference * difference / expected;
  }
  return statistic;
}

// 99.999 % quantiles of chi-square with 1, 2, 3 and 4 degrees of freedom.
constexpr double kQuantile[] = {0, 19.51, 23.03, 25.90, 28.47};

// --- The generator and exp.

TEST(Random, GivesThePublishedSequence) {
  // Computed by a transcription of the authors' C code into Python.
  Random zero(0);
  EXPECT_EQ(zero.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(zero.Next(), 0xbf6e1f784956452au);
  Random other(42);
  EXPECT_EQ(other.Next(), 0x15780b2e0c2ec716u);
  EXPECT_EQ(other.Next(), 0x6104d9866d113a7eu);
}

TEST(Random, UniformNumbersAreBelowOne) {
  Random random(1);
  double sum = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double number = random.NextUniform();
    ASSERT_GE(number, 0.0);
    ASSERT_LT(number, 1.0);
    sum += number;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);  // 5.5 standard deviations
}

TEST(Exp, IsWithinFourUnitsOfTheLastPlace) {
  EXPECT_EQ(ExpOfNonPositive(0.0), 1.0);
  EXPECT_EQ(ExpOfNonPositive(-std::numeric_limits<double>::infinity()), 0.0);
  EXPECT_EQ(ExpOfNonPositive(-701.0), 0.0);
  Random random(3);
  for (int i = 0; i < 200'000; ++i) {
    const double x = -700.0 * random.NextUniform() * (i % 2 == 0 ? 1.0 : 0.01);
    const double expected = std::exp(x);
    ASSERT_NEAR(ExpOfNonPositive(x), expected, 4 * 0x1p-52 * expected) << x;
  }
}

// --- Greedy choice.

TEST(SamplerGreedy, TakesTheMostProbableToken) {
  EXPECT_EQ(GreedyChoice(Greedy(), {-3, 1, 2, -1}), 2);
  EXPECT_EQ(GreedyChoice(Greedy(), {5}), 0);
  EXPECT_EQ(GreedyChoice(Greedy(), {-kInfinity, -1e30f, -kInfinity}), 1);
}

TEST(SamplerGreedy, TakesTheLowestIdAmongEquals) {
  EXPECT_EQ(GreedyChoice(Greedy(), {1, 3, 3, 3}), 1);
  EXPECT_EQ(GreedyChoice(Greedy(), std::vector<float>(1000, -2.5f)), 0);
  EXPECT_EQ(GreedyChoice(Greedy(), {-0.0f, 0.0f}), 0);
}

TEST(SamplerGreedy, ATopKOfOneIsGreedyToo) {
  SamplingOptions options = PlainDraw();
  options.top_k = 1;
  EXPECT_EQ(CountDraws(options, {1, 3, 3, 2}, 100), (std::vector<int64_t>{0, 100, 0, 0}));
}

// --- Errors.

TEST(SamplerErrors, RefusesLogitsThatAreNoDistribution) {
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingOptions options = PlainDraw();
    options.temperature = temperature;
    Sampler sampler(options, 3);
    EXPECT_EQ(sampler.Sample(std::vector<float>{0, kNan, 1}).status().code(), ErrorCode::kCorrupt);
    EXPECT_EQ(sampler.Sample(std::vector<float>{kNan, kNan, kNan}).status().code(),
              ErrorCode::kCorrupt);
    EXPECT_EQ(sampler.Sample(std::vector<float>{0, kInfinity, 1}).status().code(),
              ErrorCode::kCorrupt);
    EXPECT_EQ(sampler.Sample(std::vector<float>(3, -kInfinity)).status().code(),
              ErrorCode::kCorrupt);
    EXPECT_EQ(sampler.Sample(std::vector<float>{0, 1}).status().code(),
              ErrorCode::kInvalidArgument);
    EXPECT_TRUE(sampler.Sample(std::vector<float>{0, 1, -kInfinity}).ok());
  }
}

TEST(SamplerErrors, RefusesWhenTheBiasBansEveryToken) {
  SamplingOptions options = Greedy();
  options.logit_bias = {{0, -kInfinity}, {1, -kInfinity}};
  Sampler sampler(options, 2);
  EXPECT_EQ(sampler.Sample(std::vector<float>{0, 1}).status().code(), ErrorCode::kInvalidArgument);
}

TEST(SamplerErrors, AnErrorDoesNotMoveTheRandomState) {
  const std::vector<float> logits(50, 0.0f);
  Sampler disturbed(PlainDraw(), 50);
  Sampler other(PlainDraw(), 50);
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(disturbed.Sample(std::vector<float>(50, kNan)).ok());
    EXPECT_EQ(disturbed.Sample(logits)->id, other.Sample(logits)->id);
  }
}

TEST(SamplingOptionsValidate, KnowsTheRangeOfEachField) {
  EXPECT_TRUE(Validate(SamplingOptions(), 10).ok());
  EXPECT_TRUE(Validate(PlainDraw(), 10).ok());
  const auto fails = [](auto change) {
    SamplingOptions options;
    change(options);
    return Validate(options, 10).code() == ErrorCode::kInvalidArgument;
  };
  for (const float bad : {kNan, kInfinity, -0.1f, 100.5f}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.temperature = bad; })) << bad;
  }
  for (const float bad : {kNan, 0.0f, 1.01f, -1.0f}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.top_p = bad; })) << bad;
  }
  for (const float bad : {kNan, -0.01f, 1.01f}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.min_p = bad; })) << bad;
  }
  for (const float bad : {kNan, 0.0f, -1.0f, kInfinity}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.repeat_penalty = bad; })) << bad;
  }
  for (const float bad : {kNan, -2.1f, 2.1f}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.presence_penalty = bad; })) << bad;
    EXPECT_TRUE(fails([bad](auto& o) { o.frequency_penalty = bad; })) << bad;
  }
  for (const float bad : {kNan, kInfinity, 100.5f, -100.5f}) {
    EXPECT_TRUE(fails([bad](auto& o) { o.logit_bias = {{1, bad}}; })) << bad;
  }
  EXPECT_TRUE(fails([](auto& o) { o.logit_bias = {{10, 1.0f}}; }));
  EXPECT_TRUE(fails([](auto& o) { o.logit_bias = {{-1, 1.0f}}; }));
  EXPECT_TRUE(fails([](auto& o) { o.top_k = -1; }));
  EXPECT_TRUE(fails([](auto& o) { o.repeat_last_n = -2; }));
  EXPECT_TRUE(fails([](auto& o) { o.logprobs = -2; }));
  EXPECT_TRUE(fails([](auto& o) { o.logprobs = 101; }));
  EXPECT_FALSE(Validate(SamplingOptions(), 0).ok());
  SamplingOptions edge;
  edge.logit_bias = {{9, -kInfinity}, {0, 100.0f}, {0, -100.0f}};
  edge.top_k = 1 << 30;
  EXPECT_TRUE(Validate(edge, 10).ok());
}

TEST(SamplingOptionsValidate, NamesTheOption) {
  SamplingOptions options;
  options.top_p = 1.5f;
  EXPECT_EQ(Validate(options, 10).message(), "top_p is 1.5; it must be in (0, 1]");
}

// --- Penalties and bias, by hand: the greedy choice changes sides where the sum says so.

TEST(SamplerPenalties, RepeatDividesAPositiveLogit) {
  SamplingOptions options = Greedy();
  options.repeat_penalty = 2.0f;
  EXPECT_EQ(GreedyChoice(options, {2.0f, 0.99f}, {0}), 0);  // 2 / 2 = 1 > 0.99
  EXPECT_EQ(GreedyChoice(options, {2.0f, 1.01f}, {0}), 1);
  EXPECT_EQ(GreedyChoice(options, {2.0f, 1.01f}, {1}), 0);
  EXPECT_EQ(GreedyChoice(options, {2.0f, 0.99f}, {0, 0, 0}), 0);  // once, however often it occurred
}

TEST(SamplerPenalties, RepeatMultipliesANegativeLogit) {
  SamplingOptions options = Greedy();
  options.repeat_penalty = 1.5f;
  EXPECT_EQ(GreedyChoice(options, {-2.0f, -3.01f}, {0}), 0);  // -2 * 1.5 = -3
  EXPECT_EQ(GreedyChoice(options, {-2.0f, -2.99f}, {0}), 1);
}

TEST(SamplerPenalties, FrequencyCountsAndPresenceDoesNot) {
  SamplingOptions options = Greedy();
  options.frequency_penalty = 0.5f;
  EXPECT_EQ(GreedyChoice(options, {3.0f, 1.49f}, {0, 0, 0}), 0);  // 3 - 3 * 0.5 = 1.5
  EXPECT_EQ(GreedyChoice(options, {3.0f, 1.51f}, {0, 0, 0}), 1);
  options.frequency_penalty = 0;
  options.presence_penalty = 0.5f;
  EXPECT_EQ(GreedyChoice(options, {3.0f, 2.49f}, {0, 0, 0}), 0);  // 3 - 0.5 = 2.5
  EXPECT_EQ(GreedyChoice(options, {3.0f, 2.51f}, {0, 0, 0}), 1);
  options.presence_penalty = -2.0f;
  EXPECT_EQ(GreedyChoice(options, {3.0f, 1.01f}, {1}), 1);  // a negative one attracts
}

TEST(SamplerPenalties, AllOfThemTogether) {
  SamplingOptions options = Greedy();
  options.logit_bias = {{0, 1.0f}};
  options.repeat_penalty = 2.0f;
  options.frequency_penalty = 0.25f;
  options.presence_penalty = 0.5f;
  // (3 + 1) / 2 - 2 * 0.25 - 0.5 = 1: the bias comes first.
  EXPECT_EQ(GreedyChoice(options, {3.0f, 0.99f}, {0, 0}), 0);
  EXPECT_EQ(GreedyChoice(options, {3.0f, 1.01f}, {0, 0}), 1);
}

TEST(SamplerPenalties, ForgetWhatLiesBeforeTheWindow) {
  SamplingOptions options = Greedy();
  options.presence_penalty = 2.0f;
  const std::vector<float> logits = {1.0f, 0.5f, 0.0f};
  options.repeat_last_n = 2;
  EXPECT_EQ(GreedyChoice(options, logits, {0, 2}), 1);
  EXPECT_EQ(GreedyChoice(options, logits, {0, 2, 2}), 0);
  EXPECT_EQ(GreedyChoice(options, logits, {0, 0, 2, 1}), 0);
  EXPECT_EQ(GreedyChoice(options, logits, {0, 2, 0}), 1);
  options.repeat_last_n = 0;
  EXPECT_EQ(GreedyChoice(options, logits, {0, 0, 0}), 0);
  options.repeat_last_n = -1;
  std::vector<int32_t> history(1000, 2);
  history[0] = 0;
  EXPECT_EQ(GreedyChoice(options, logits, history), 1);
  options.repeat_last_n = 1000;
  EXPECT_EQ(GreedyChoice(options, logits, history), 1);
  options.repeat_last_n = 999;
  EXPECT_EQ(GreedyChoice(options, logits, history), 0);
}

TEST(SamplerPenalties, ABiasCanForceAndBan) {
  SamplingOptions options = Greedy();
  options.logit_bias = {{2, 100.0f}};
  EXPECT_EQ(GreedyChoice(options, {50.0f, 0.0f, -49.0f}), 2);
  options.logit_bias = {{0, -kInfinity}};
  EXPECT_EQ(GreedyChoice(options, {50.0f, 0.0f, -49.0f}), 1);
  options = PlainDraw();
  options.logit_bias = {{0, -kInfinity}};
  EXPECT_EQ(CountDraws(options, {10.0f, 0.0f}, 1000), (std::vector<int64_t>{0, 1000}));
}

// --- Truncation and temperature: which tokens occur, and how often.

TEST(SamplerDraw, FollowsTheSoftmax) {
  const std::vector<double> p = {0.5, 0.3, 0.15, 0.05};
  for (const double shift : {0.0, 80.0, -1000.0}) {
    EXPECT_LT(ChiSquare(CountDraws(PlainDraw(), LogitsOf(p, shift), 50'000), p), kQuantile[3]);
  }
}

TEST(SamplerDraw, TemperatureIsAnExponent) {
  const std::vector<double> p = {0.64, 0.25, 0.09, 0.02};
  SamplingOptions options = PlainDraw();
  options.temperature = 2.0f;  // p^(1/2)
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 50'000), {0.8, 0.5, 0.3, std::sqrt(0.02)}),
            kQuantile[3]);
  options.temperature = 0.5f;  // p^2
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 50'000), {0.4096, 0.0625, 0.0081, 0.0004}),
            kQuantile[3]);
}

TEST(SamplerDraw, ATinyTemperatureIsGreedy) {
  SamplingOptions options = PlainDraw();
  options.temperature = 1e-38f;
  EXPECT_EQ(CountDraws(options, {1.0f, 1.001f, -5.0f}, 100), (std::vector<int64_t>{0, 100, 0}));
}

TEST(SamplerDraw, TopKKeepsTheBest) {
  const std::vector<double> p = {0.05, 0.5, 0.15, 0.3};
  SamplingOptions options = PlainDraw();
  options.top_k = 2;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0, 0.3}), kQuantile[1]);
  options.top_k = 3;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0.15, 0.3}), kQuantile[2]);
  options.top_k = 4;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), p), kQuantile[3]);
  options.top_k = 1000;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), p), kQuantile[3]);
}

TEST(SamplerDraw, TopKKeepsTheLowerIdsAmongEquals) {
  SamplingOptions options = PlainDraw();
  options.top_k = 3;
  EXPECT_LT(ChiSquare(CountDraws(options, {1, 1, 1, 1, 1}, 20'000), {1, 1, 1, 0, 0}), kQuantile[2]);
}

TEST(SamplerDraw, TopPKeepsTheTokenThatReachesIt) {
  const std::vector<double> p = {0.05, 0.5, 0.15, 0.3};
  SamplingOptions options = PlainDraw();
  options.top_p = 0.49f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 1000), {0, 1, 0, 0}), 1e-9);
  options.top_p = 0.51f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0, 0.3}), kQuantile[1]);
  options.top_p = 0.79f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0, 0.3}), kQuantile[1]);
  options.top_p = 0.81f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0.15, 0.3}), kQuantile[2]);
  options.top_p = 1e-30f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 1000), {0, 1, 0, 0}), 1e-9);
}

TEST(SamplerDraw, TopPLooksAtWhatTopKLeft) {
  SamplingOptions options = PlainDraw();
  options.top_k = 2;
  options.top_p = 0.6f;  // 0.5 of the whole, but 0.625 of the two that are left
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf({0.05, 0.5, 0.15, 0.3}), 1000), {0, 1, 0, 0}),
            1e-9);
}

TEST(SamplerDraw, MinPIsRelativeToTheLargest) {
  const std::vector<double> p = {0.05, 0.5, 0.15, 0.3};
  SamplingOptions options = PlainDraw();
  options.min_p = 0.29f;  // of 0.5: 0.145
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0.15, 0.3}), kQuantile[2]);
  options.min_p = 0.31f;  // 0.155
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), {0, 0.5, 0, 0.3}), kQuantile[1]);
  options.min_p = 1.0f;
  EXPECT_LT(ChiSquare(CountDraws(options, {2, 3, 3, 1}, 20'000), {0, 1, 1, 0}), kQuantile[1]);
}

TEST(SamplerDraw, TruncationDoesNotSeeTheTemperature) {
  const std::vector<double> p = {0.05, 0.5, 0.15, 0.3};
  SamplingOptions options = PlainDraw();
  options.temperature = 100.0f;  // after it, all would be nearly equal
  options.top_p = 0.79f;
  const std::vector<double> two = {0, std::pow(0.5, 0.01), 0, std::pow(0.3, 0.01)};
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), two), kQuantile[1]);
  options.top_p = 1.0f;
  options.min_p = 0.31f;
  EXPECT_LT(ChiSquare(CountDraws(options, LogitsOf(p), 20'000), two), kQuantile[1]);
}

TEST(SamplerDraw, TopPOverAFlatVocabularyKeepsItsShare) {
  SamplingOptions options = PlainDraw();
  options.top_p = 0.9f;
  const std::vector<int64_t> counts = CountDraws(options, std::vector<float>(5000, 1.0f), 1000);
  EXPECT_EQ(std::accumulate(counts.begin() + 4501, counts.end(), int64_t{0}), 0);
  // The upper half of what is kept has half of the draws.
  const int64_t upper = std::accumulate(counts.begin() + 2250, counts.end(), int64_t{0});
  EXPECT_NEAR(static_cast<double>(upper), 500, 5 * std::sqrt(250.0));
}

TEST(SamplerDraw, OneTokenIsAVocabulary) {
  EXPECT_EQ(CountDraws(SamplingOptions(), {-7.0f}, 10), (std::vector<int64_t>{10}));
}

TEST(SamplerDraw, ASeedRepeatsItselfAndAnotherDoesNot) {
  const std::vector<float> logits(1000, 0.0f);
  const auto draws = [&](uint64_t seed) {
    SamplingOptions options = PlainDraw();
    options.seed = seed;
    Sampler sampler(options, 1000);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.Sample(logits)->id);
    return ids;
  };
  EXPECT_EQ(draws(1), draws(1));
  std::set<std::vector<int32_t>> all;
  for (uint64_t seed = 0; seed < 20; ++seed) all.insert(draws(seed));
  EXPECT_EQ(all.size(), 20u);
}

TEST(SamplerDraw, ADrawIsTheSameOnEveryPlatform) {
  // Of 1000 equal tokens, the uniform number u chooses number floor(1000 u).
  Random random(7);
  Sampler sampler(PlainDraw(), 1000);
  for (int i = 0; i < 1000; ++i) {
    const auto expected = static_cast<int32_t>(std::floor(1000 * random.NextUniform()));
    ASSERT_EQ(sampler.Sample(std::vector<float>(1000, 3.0f))->id, expected);
  }
}

// --- What is reported.

TEST(SamplerLogprobs, AreThoseOfTheModelWhateverTheOptionsDo) {
  SamplingOptions options = PlainDraw();
  options.temperature = 3.0f;
  options.top_k = 1;
  options.logit_bias = {{2, 50.0f}};
  options.repeat_penalty = 5.0f;
  options.logprobs = 3;
  Sampler sampler(options, 4);
  sampler.Accept(0);
  const Result<SampledToken> token = sampler.Sample(LogitsOf({0.5, 0.3, 0.15, 0.05}, 20));
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 2);
  EXPECT_NEAR(token->logprob, std::log(0.15), 1e-5);
  ASSERT_EQ(token->top.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(token->top[i].first, static_cast<int32_t>(i));
    EXPECT_NEAR(token->top[i].second, std::log(std::vector<double>{0.5, 0.3, 0.15}[i]), 1e-5);
  }
}

TEST(SamplerLogprobs, AreCountedAsAsked) {
  for (const auto& [asked, given] : {std::pair{-1, 0}, {0, 0}, {1, 1}, {3, 3}, {100, 3}}) {
    SamplingOptions options = Greedy();
    options.logprobs = asked;
    Sampler sampler(options, 3);
    const Result<SampledToken> token = sampler.Sample(std::vector<float>{1, 2, 3});
    ASSERT_TRUE(token.ok());
    EXPECT_EQ(token->top.size(), static_cast<size_t>(given));
    const double expected = asked < 0 ? 0 : -std::log(1 + std::exp(-1) + std::exp(-2));
    EXPECT_NEAR(token->logprob, expected, 1e-6) << asked;
  }
}

TEST(SamplerLogprobs, OfALargeVocabularyAreTheSortedOnes) {
  std::mt19937_64 random(5);
  for (const size_t size : {101u, 997u, 50'000u}) {
    std::vector<float> logits(size);
    // Few distinct values, so that there are ties at the border.
    for (float& logit : logits) logit = static_cast<float>(random() % 64) / 4.0f;
    std::vector<int32_t> order(size);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    long double total = 0;
    for (const float logit : logits) total += std::exp(static_cast<long double>(logit) - 16);
    SamplingOptions options = Greedy();
    options.logprobs = 100;
    Sampler sampler(options, static_cast<int32_t>(size));
    const Result<SampledToken> token = sampler.Sample(logits);
    ASSERT_TRUE(token.ok());
    ASSERT_EQ(token->top.size(), 100u);
    for (size_t i = 0; i < 100; ++i) {
      const auto expected =
          static_cast<double>(logits[static_cast<size_t>(order[i])] - 16 - std::log(total));
      EXPECT_EQ(token->top[i].first, order[i]);
      EXPECT_NEAR(token->top[i].second, expected, 1e-5);
    }
    EXPECT_EQ(token->id, order[0]);
  }
}

TEST(SamplerLogprobs, OfABannedTokenAreMinusInfinity) {
  SamplingOptions options = Greedy();
  options.logprobs = 2;
  Sampler sampler(options, 2);
  const Result<SampledToken> token = sampler.Sample(std::vector<float>{-kInfinity, 4.0f});
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->logprob, 0.0f);
  EXPECT_EQ(token->top[1], (std::pair<int32_t, float>{0, -kInfinity}));
}

// The best logits as a device finds them.
struct Best {
  std::vector<float> logits;
  std::vector<int32_t> ids;
  double weight_sum = 0;
  BestLogits view() const { return {logits, ids, weight_sum}; }
};
Best BestOf(const std::vector<float>& logits, size_t count) {
  Best best;
  best.ids.resize(logits.size());
  std::iota(best.ids.begin(), best.ids.end(), 0);
  std::stable_sort(best.ids.begin(), best.ids.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  best.ids.resize(count);
  for (int32_t id : best.ids) best.logits.push_back(logits[static_cast<size_t>(id)]);
  for (float logit : logits) best.weight_sum += std::exp(double{logit} - double{best.logits[0]});
  return best;
}

TEST(Sampler, TheBestLogitsGiveTheChoicesOfAll) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  for (int32_t vocab : {1, 2, 41, 1000}) {
    for (int kind = 0; kind < 5; ++kind) {
      SamplingOptions options;
      options.seed = 11;
      if (kind == 0) options.temperature = 0;
      if (kind == 1) options.top_k = 1;
      if (kind == 2) options.top_p = 1, options.logprobs = 100;
      if (kind == 3) options.min_p = 0, options.temperature = 1.5f, options.logprobs = 0;
      Sampler all(options, vocab);
      Sampler few(options, vocab);
      const int64_t wanted = few.BestWanted(256);
      if (wanted == 0) continue;  // top-k keeps the whole vocabulary
      ASSERT_LE(wanted, vocab);
      for (int draw = 0; draw < 200; ++draw) {
        std::vector<float> logits(static_cast<size_t>(vocab));
        for (float& logit : logits) logit = std::round(normal(random) * 4) / 4;
        const Result<SampledToken> expected = all.Sample(logits);
        const Result<SampledToken> actual =
            few.SampleBest(BestOf(logits, static_cast<size_t>(wanted)).view());
        ASSERT_TRUE(expected.ok() && actual.ok());
        ASSERT_EQ(actual->id, expected->id) << vocab << ", " << kind << ", " << draw;
        ASSERT_NEAR(actual->logprob, expected->logprob, 1e-6);
        ASSERT_EQ(actual->top.size(), expected->top.size());
        for (size_t i = 0; i < actual->top.size(); ++i) {
          ASSERT_EQ(actual->top[i].first, expected->top[i].first);
        }
      }
    }
  }
}

TEST(Sampler, SaysWhenTheBestLogitsAreNotEnough) {
  const auto wanted = [](const SamplingOptions& options) {
    return Sampler(options, 1000).BestWanted(256);
  };
  const SamplingOptions usual;
  EXPECT_EQ(wanted(usual), 40);
  EXPECT_EQ(wanted(Greedy()), 1);
  EXPECT_EQ(wanted(PlainDraw()), 0);
  SamplingOptions options = usual;
  options.logprobs = 100;
  EXPECT_EQ(wanted(options), 100);
  options.top_k = 257;
  EXPECT_EQ(wanted(options), 0);
  options.top_k = 256;
  EXPECT_EQ(wanted(options), 256);
  options = usual;
  options.logit_bias = {{1, 0.5f}};
  EXPECT_EQ(wanted(options), 0);
  for (float SamplingOptions::*penalty :
       {&SamplingOptions::repeat_penalty, &SamplingOptions::presence_penalty,
        &SamplingOptions::frequency_penalty}) {
    options = usual;
    options.*penalty = 0.5f;
    EXPECT_EQ(wanted(options), 0);
    options.repeat_last_n = 0;
    EXPECT_EQ(wanted(options), 40);
  }
  EXPECT_EQ(Sampler(Greedy(), 1).BestWanted(0), 0);
}

TEST(Sampler, RefusesBestLogitsThatAreNoNumbers) {
  const std::vector<int32_t> ids = {3, 1};
  for (float bad : {kNan, kInfinity, -kInfinity}) {
    const std::vector<float> logits = {bad, -kInfinity};
    EXPECT_EQ(Sampler(Greedy(), 9).SampleBest({logits, ids, 1.0}).status().code(),
              ErrorCode::kCorrupt);
  }
  EXPECT_EQ(Sampler(Greedy(), 9).SampleBest({}).status().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
