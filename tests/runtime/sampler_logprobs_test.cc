// What is reported beside a choice, and choices from the best logits alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "runtime/sampler.h"
#include "tests/support/sampling.h"

namespace sluice {
namespace {

using test::Greedy;
using test::kInfinity;
using test::kNan;
using test::LogitsOf;
using test::PlainDraw;

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
