// What tests of the sampler share: options, logits and many draws.
#ifndef SLUICE_TESTS_SUPPORT_SAMPLING_H_
#define SLUICE_TESTS_SUPPORT_SAMPLING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/sampler.h"

namespace sluice::test {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Nothing but a plain draw from the softmax.
inline SamplingOptions PlainDraw() {
  SamplingOptions options;
  options.temperature = 1.0f;
  options.top_k = 0;
  options.top_p = 1.0f;
  options.min_p = 0.0f;
  options.seed = 7;
  return options;
}

inline SamplingOptions Greedy() {
  SamplingOptions options = PlainDraw();
  options.temperature = 0.0f;
  return options;
}

inline std::vector<float> LogitsOf(const std::vector<double>& probabilities, double shift = 0) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

// How often each token was drawn.
inline std::vector<int64_t> CountDraws(const SamplingOptions& options,
                                       const std::vector<float>& logits, int draws) {
  Sampler sampler(options, static_cast<int32_t>(logits.size()));
  std::vector<int64_t> counts(logits.size(), 0);
  for (int i = 0; i < draws; ++i) {
    const Result<SampledToken> token = sampler.Sample(logits);
    EXPECT_TRUE(token.ok());
    if (token.ok()) ++counts[static_cast<size_t>(token->id)];
  }
  return counts;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SAMPLING_H_
