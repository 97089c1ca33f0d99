// The greedy choice, what is refused, penalties and bias.
#include "runtime/sampler.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/sampling.h"

namespace sluice {
namespace {

using test::CountDraws;
using test::Greedy;
using test::kInfinity;
using test::kNan;
using test::PlainDraw;

int32_t GreedyChoice(const SamplingOptions& options, const std::vector<float>& logits,
                     const std::vector<int32_t>& history = {}) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  for (const int32_t token : history) sampler.Accept(token);
  const Result<SampledToken> token = sampler.Sample(logits);
  EXPECT_TRUE(token.ok()) << token.status().message();
  return token.ok() ? token->id : -1;
}

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

// Penalties and bias, by hand: the greedy choice changes sides where the sum says so.

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

}  // namespace
}  // namespace sluice
