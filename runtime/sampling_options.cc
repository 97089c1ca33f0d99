#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "runtime/sampler.h"

namespace sluice {
namespace {

constexpr int32_t kMaxLogprobs = 100;

Status OutOfRange(const char* name, double value, const char* range) {
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("{} is {}; it must be {}", name, value, range));
}

}  // namespace

// Every comparison is written so that a NaN fails it.
Status Validate(const SamplingOptions& options, int32_t vocab_size) {
  if (vocab_size <= 0) return OutOfRange("the vocabulary's size", vocab_size, "positive");
  if (!(options.temperature >= 0.0f && options.temperature <= 100.0f)) {
    return OutOfRange("temperature", options.temperature, "in [0, 100]");
  }
  if (options.top_k < 0) return OutOfRange("top_k", options.top_k, "at least 0");
  if (!(options.top_p > 0.0f && options.top_p <= 1.0f)) {
    return OutOfRange("top_p", options.top_p, "in (0, 1]");
  }
  if (!(options.min_p >= 0.0f && options.min_p <= 1.0f)) {
    return OutOfRange("min_p", options.min_p, "in [0, 1]");
  }
  if (!(options.repeat_penalty > 0.0f && options.repeat_penalty <= 100.0f)) {
    return OutOfRange("repeat_penalty", options.repeat_penalty, "in (0, 100]");
  }
  if (options.repeat_last_n < -1) {
    return OutOfRange("repeat_last_n", options.repeat_last_n, "at least -1");
  }
  if (!(options.presence_penalty >= -2.0f && options.presence_penalty <= 2.0f)) {
    return OutOfRange("presence_penalty", options.presence_penalty, "in [-2, 2]");
  }
  if (!(options.frequency_penalty >= -2.0f && options.frequency_penalty <= 2.0f)) {
    return OutOfRange("frequency_penalty", options.frequency_penalty, "in [-2, 2]");
  }
  for (const auto& [id, bias] : options.logit_bias) {
    if (id < 0 || id >= vocab_size)
      return OutOfRange("a token of logit_bias", id, "in the vocabulary");
    const bool bans = bias == -std::numeric_limits<float>::infinity();
    if (!(bans || (bias >= -100.0f && bias <= 100.0f))) {
      return OutOfRange("a logit_bias", bias, "in [-100, 100] or -infinity");
    }
  }
  if (options.logprobs < -1 || options.logprobs > kMaxLogprobs) {
    return OutOfRange("logprobs", options.logprobs, "in [-1, 100]");
  }
  return Status();
}

}  // namespace sluice
