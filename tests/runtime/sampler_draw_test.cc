// Truncation and temperature: which tokens occur, and how often.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "runtime/random.h"
#include "runtime/sampler.h"
#include "tests/support/sampling.h"

namespace sluice {
namespace {

using test::CountDraws;
using test::LogitsOf;
using test::PlainDraw;

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

}  // namespace
}  // namespace sluice
