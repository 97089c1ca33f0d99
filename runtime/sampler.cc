#include "runtime/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice {
namespace {

constexpr int32_t kMaxLogprobs = 100;

Status OutOfRange(const char* field, double value, const char* range) {
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("sampling: {} is {}, not {}", field, value, range));
}

}  // namespace

Status Validate(const SamplingOptions& options, int32_t vocab_size) {
  // Comparisons are written so that NaN fails them.
  if (!(options.temperature >= 0 && options.temperature <= 1000)) {
    return OutOfRange("temperature", options.temperature, "from 0 to 1000");
  }
  if (options.top_k < 0) return OutOfRange("top_k", options.top_k, "0 or more");
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    return OutOfRange("top_p", options.top_p, "above 0 and at most 1");
  }
  if (!(options.min_p >= 0 && options.min_p <= 1)) {
    return OutOfRange("min_p", options.min_p, "from 0 to 1");
  }
  if (!(options.repeat_penalty > 0 && options.repeat_penalty <= 1000)) {
    return OutOfRange("repeat_penalty", options.repeat_penalty, "above 0 and at most 1000");
  }
  if (options.repeat_last_n < -1) {
    return OutOfRange("repeat_last_n", options.repeat_last_n, "-1 or more");
  }
  if (!(std::fabs(options.presence_penalty) <= 2)) {
    return OutOfRange("presence_penalty", options.presence_penalty, "from -2 to 2");
  }
  if (!(std::fabs(options.frequency_penalty) <= 2)) {
    return OutOfRange("frequency_penalty", options.frequency_penalty, "from -2 to 2");
  }
  if (options.logprobs < -1 || options.logprobs > kMaxLogprobs) {
    return OutOfRange("logprobs", options.logprobs, "from -1 to 100");
  }
  for (const auto& [id, bias] : options.logit_bias) {
    if (id < 0 || id >= vocab_size) {
      return OutOfRange("a token of logit_bias", id, "in the vocabulary");
    }
    if (!std::isfinite(bias)) return OutOfRange("a logit_bias", bias, "finite");
  }
  return Status();
}

Sampler::Sampler(SamplingOptions options, int32_t vocab_size)
    : options_(std::move(options)), vocab_size_(vocab_size), random_state_(options_.seed) {}

void Sampler::Accept(int32_t token) { history_.push_back(token); }

Result<SampledToken> Sampler::Sample(std::span<const float> logits) {
  bool any_possible = false;
  for (float logit : logits) {
    if (std::isnan(logit) || logit == std::numeric_limits<float>::infinity()) {
      return Status(ErrorCode::kInternal, "the model computed a logit that is not a number");
    }
    any_possible |= std::isfinite(logit);
  }
  if (!any_possible) return Status(ErrorCode::kInternal, "the model excludes every token");

  candidates_.resize(static_cast<size_t>(vocab_size_));
  for (int32_t id = 0; id < vocab_size_; ++id) {
    candidates_[static_cast<size_t>(id)] = {logits[static_cast<size_t>(id)], id};
  }
  for (const auto& [id, bias] : options_.logit_bias) {
    candidates_[static_cast<size_t>(id)].logit += bias;
  }
  ApplyPenalties();
  if (options_.temperature == 0) {
    const auto best =
        std::max_element(candidates_.begin(), candidates_.end(),
                         [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; });
    return Report(logits, best->id);
  }
  KeepTopK();
  KeepTopP();
  KeepMinP();
  return Report(logits, Draw());
}

void Sampler::ApplyPenalties() {
  const bool off = options_.repeat_penalty == 1 && options_.presence_penalty == 0 &&
                   options_.frequency_penalty == 0;
  if (off || options_.repeat_last_n == 0) return;
  const size_t window =
      options_.repeat_last_n < 0
          ? history_.size()
          : std::min(history_.size(), static_cast<size_t>(options_.repeat_last_n));
  counts_.clear();
  for (size_t i = history_.size() - window; i < history_.size(); ++i) ++counts_[history_[i]];
  for (const auto& [id, count] : counts_) {
    float& logit = candidates_[static_cast<size_t>(id)].logit;
    logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    logit -= static_cast<float>(count) * options_.frequency_penalty + options_.presence_penalty;
  }
}

// Most probable first; equals in the order of ids. Without top-k everything is sorted, which the
// cumulative sums of top-p need.
void Sampler::KeepTopK() {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const auto k = static_cast<size_t>(options_.top_k);
  if (k > 0 && k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k),
                     candidates_.end(), before);
    candidates_.resize(k);
  }
  std::sort(candidates_.begin(), candidates_.end(), before);
}

// Nucleus sampling (Holtzman et al., 2020): the fewest candidates whose probabilities reach top_p.
void Sampler::KeepTopP() {
  if (options_.top_p >= 1) return;
  const double top = candidates_[0].logit;
  double total = 0;
  for (const Candidate& candidate : candidates_) total += std::exp(candidate.logit - top);
  double sum = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    sum += std::exp(candidates_[i].logit - top);
    if (sum >= options_.top_p * total) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

// Candidates with at least min_p times the probability of the first (Nguyen et al., 2024).
void Sampler::KeepMinP() {
  if (options_.min_p <= 0) return;
  const double least = candidates_[0].logit + std::log(static_cast<double>(options_.min_p));
  size_t count = 1;
  while (count < candidates_.size() && candidates_[count].logit >= least) ++count;
  candidates_.resize(count);
}

int32_t Sampler::Draw() {
  const double top = candidates_[0].logit;
  const double inverse = 1.0 / options_.temperature;
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    total += std::exp((candidate.logit - top) * inverse);
  }
  // 53 random bits: uniform in [0, 1).
  double left = static_cast<double>(NextRandom() >> 11) * 0x1p-53 * total;
  for (const Candidate& candidate : candidates_) {
    left -= std::exp((candidate.logit - top) * inverse);
    if (left < 0) return candidate.id;
  }
  // Rounding may leave a crumb; the last candidate that is possible takes it.
  auto last = candidates_.end() - 1;
  while (!std::isfinite(last->logit)) --last;
  return last->id;
}

// SplitMix64 (Steele, Lea and Flood, 2014).
uint64_t Sampler::NextRandom() {
  random_state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = random_state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

SampledToken Sampler::Report(std::span<const float> logits, int32_t id) const {
  const double top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (float logit : logits) total += std::exp(logit - top);
  const double log_total = top + std::log(total);
  SampledToken token;
  token.id = id;
  token.logprob = static_cast<float>(logits[static_cast<size_t>(id)] - log_total);
  if (options_.logprobs <= 0) return token;
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto count = std::min(ids.size(), static_cast<size_t>(options_.logprobs));
  const auto middle = ids.begin() + static_cast<ptrdiff_t>(count);
  std::partial_sort(ids.begin(), middle, ids.end(), [&logits](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto it = ids.begin(); it != middle; ++it) {
    token.top.emplace_back(*it, static_cast<float>(logits[static_cast<size_t>(*it)] - log_total));
  }
  return token;
}

}  // namespace sluice
