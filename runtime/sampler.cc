#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/exp.h"

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// How many candidates top-p looks at first when top-k does not bound them.
constexpr size_t kFirstNucleus = 256;

// Loops over a vocabulary work on blocks of this many, lane by lane, which compilers turn into
// vectors; the order of the operations is fixed, so every platform gets the same bits.
constexpr size_t kLanes = 16;

// Sum of exp(logit - largest) over all logits.
double SumOfWeights(std::span<const float> logits, float largest) {
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* block = &logits[i];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += ExpOfNonPositive(double{block[lane]} - double{largest});
    }
  }
  double sum = 0;
  for (; i < logits.size(); ++i) sum += ExpOfNonPositive(double{logits[i]} - double{largest});
  for (const double lane : sums) sum += lane;
  return sum;
}

float Largest(std::span<const float> logits) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* block = &logits[i];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = block[lane] > lanes[lane] ? block[lane] : lanes[lane];
    }
  }
  float largest = *std::max_element(lanes, lanes + kLanes);
  for (; i < logits.size(); ++i) largest = std::max(largest, logits[i]);
  return largest;
}

// Not NaN, not +infinity, and not all -infinity.
Status CheckLogits(std::span<const float> logits) {
  uint32_t bad[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* block = &logits[i];
    for (size_t lane = 0; lane < kLanes; ++lane) bad[lane] |= block[lane] < kInfinity ? 0 : 1;
  }
  for (; i < logits.size(); ++i) bad[0] |= logits[i] < kInfinity ? 0 : 1;
  if (std::count(bad, bad + kLanes, 0u) != kLanes) {
    return Status(ErrorCode::kCorrupt, "the logits have a NaN or an infinity among them");
  }
  if (Largest(logits) == -kInfinity) return Status(ErrorCode::kCorrupt, "all logits are -infinity");
  return Status();
}

}  // namespace

Sampler::Sampler(SamplingOptions options, int32_t vocab_size)
    : options_(std::move(options)), vocab_size_(vocab_size), random_(options_.seed) {}

void Sampler::Accept(int32_t token) {
  if (options_.repeat_last_n == 0) return;
  ++counts_[token];
  if (options_.repeat_last_n < 0) return;
  history_.push_back(token);
  if (history_.size() <= static_cast<size_t>(options_.repeat_last_n)) return;
  const auto oldest = counts_.find(history_.front());
  if (--oldest->second == 0) counts_.erase(oldest);
  history_.pop_front();
}

Result<SampledToken> Sampler::Sample(std::span<const float> logits) {
  if (logits.size() != static_cast<size_t>(vocab_size_)) {
    return Status(ErrorCode::kInvalidArgument, "the number of logits is not the vocabulary's size");
  }
  if (Status status = CheckLogits(logits); !status.ok()) return status;
  Adjust(logits);
  if (Status status = CheckLogits(adjusted_); !status.ok()) {
    return Status(ErrorCode::kInvalidArgument,
                  "bias and penalties leave no token: " + status.message());
  }
  SampledToken token;
  if (options_.temperature == 0.0f) {
    SelectBest(adjusted_, 1);
    token.id = candidates_[0].id;
  } else if (options_.top_k > 0 && options_.top_k < vocab_size_) {
    SelectBest(adjusted_, static_cast<size_t>(options_.top_k));
    token.id = DrawFromBest();
  } else {
    options_.top_p < 1.0f ? SelectNucleus() : SelectAll();
    TruncateByMinP();
    token.id = Draw();
  }
  ReportProbabilities(logits, &token);
  return token;
}

int64_t Sampler::BestWanted(int64_t most) const {
  const bool penalties = options_.repeat_last_n != 0 &&
                         (options_.repeat_penalty != 1.0f || options_.presence_penalty != 0 ||
                          options_.frequency_penalty != 0);
  if (penalties || !options_.logit_bias.empty()) return 0;
  int64_t wanted = 1;
  if (options_.temperature != 0.0f) {
    if (options_.top_k <= 0 || options_.top_k >= vocab_size_) return 0;
    wanted = options_.top_k;
  }
  wanted = std::max<int64_t>(wanted, std::min(options_.logprobs, vocab_size_));
  return wanted <= most ? wanted : 0;
}

Result<SampledToken> Sampler::SampleBest(const BestLogits& best) {
  if (best.logits.empty() || best.ids.size() != best.logits.size()) {
    return Status(ErrorCode::kInvalidArgument, "no logits, or not as many ids");
  }
  if (Status status = CheckLogits(best.logits); !status.ok()) return status;
  const size_t count = options_.temperature == 0.0f
                           ? 1
                           : std::min(static_cast<size_t>(options_.top_k), best.logits.size());
  candidates_.clear();
  for (size_t i = 0; i < count; ++i) candidates_.push_back({best.ids[i], best.logits[i]});
  SampledToken token;
  token.id = options_.temperature == 0.0f ? best.ids[0] : DrawFromBest();
  if (options_.logprobs < 0) return token;
  const double log_total = double{best.logits[0]} + std::log(best.weight_sum);
  const auto logprob = [&](size_t i) {
    return static_cast<float>(double{best.logits[i]} - log_total);
  };
  const auto chosen = std::find(best.ids.begin(), best.ids.end(), token.id);
  token.logprob = logprob(static_cast<size_t>(chosen - best.ids.begin()));
  const auto reported = static_cast<size_t>(options_.logprobs);
  for (size_t i = 0; i < std::min(reported, best.ids.size()); ++i) {
    token.top.emplace_back(best.ids[i], logprob(i));
  }
  return token;
}

void Sampler::Adjust(std::span<const float> logits) {
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [id, bias] : options_.logit_bias) adjusted_[static_cast<size_t>(id)] += bias;
  for (const auto& [id, count] : counts_) {
    float& logit = adjusted_[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    logit -= static_cast<float>(count) * options_.frequency_penalty + options_.presence_penalty;
  }
}

// The `count` best tokens, best first: one scan with a heap whose root is the worst of them.
void Sampler::SelectBest(std::span<const float> logits, size_t count) {
  candidates_.clear();
  count = std::min(count, logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const Candidate candidate{static_cast<int32_t>(i), logits[i]};
    if (candidates_.size() == count) {
      // Ids ascend, so an equal logit is never better than what is kept.
      if (!(candidate.logit > candidates_.front().logit)) continue;
      std::pop_heap(candidates_.begin(), candidates_.end(), IsBetter);
      candidates_.back() = candidate;
    } else {
      candidates_.push_back(candidate);
    }
    std::push_heap(candidates_.begin(), candidates_.end(), IsBetter);
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), IsBetter);
}

// The tokens that top-p keeps of the whole vocabulary: looks at more of them until they suffice.
void Sampler::SelectNucleus() {
  const double total = SumOfWeights(adjusted_, Largest(adjusted_));
  for (size_t count = kFirstNucleus;; count *= 8) {
    SelectBest(adjusted_, count);
    const size_t seen = candidates_.size();
    TruncateByTopP(total);
    if (candidates_.size() < seen || seen == adjusted_.size()) return;
  }
}

void Sampler::SelectAll() {
  candidates_.clear();
  for (size_t i = 0; i < adjusted_.size(); ++i) {
    if (adjusted_[i] > -kInfinity) candidates_.push_back({static_cast<int32_t>(i), adjusted_[i]});
  }
}

int32_t Sampler::DrawFromBest() {
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    total += ExpOfNonPositive(double{candidate.logit} - double{candidates_[0].logit});
  }
  TruncateByTopP(total);
  TruncateByMinP();
  return Draw();
}

void Sampler::TruncateByTopP(double total) {
  if (options_.top_p >= 1.0f) return;
  const double wanted = double{options_.top_p} * total;
  double sum = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    sum += ExpOfNonPositive(double{candidates_[i].logit} - double{candidates_[0].logit});
    if (sum >= wanted) {
      candidates_.resize(i + 1);
      return;
    }
  }
}

void Sampler::TruncateByMinP() {
  if (options_.min_p <= 0.0f) return;
  float largest = -kInfinity;
  for (const Candidate& candidate : candidates_) largest = std::max(largest, candidate.logit);
  std::erase_if(candidates_, [&](const Candidate& candidate) {
    const double relative = ExpOfNonPositive(double{candidate.logit} - double{largest});
    return relative < double{options_.min_p};
  });
}

int32_t Sampler::Draw() {
  float largest = -kInfinity;
  for (const Candidate& candidate : candidates_) largest = std::max(largest, candidate.logit);
  const auto weight = [&](const Candidate& candidate) {
    return ExpOfNonPositive((double{candidate.logit} - double{largest}) /
                            double{options_.temperature});
  };
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  const double threshold = random_.NextUniform() * total;
  double sum = 0;
  int32_t last = candidates_[0].id;  // of those that can be drawn
  for (const Candidate& candidate : candidates_) {
    const double share = weight(candidate);
    if (share == 0) continue;
    sum += share;
    last = candidate.id;
    if (sum > threshold) break;
  }
  return last;
}

void Sampler::ReportProbabilities(std::span<const float> logits, SampledToken* token) {
  if (options_.logprobs < 0) return;
  const float largest = Largest(logits);
  const double log_total = double{largest} + std::log(SumOfWeights(logits, largest));
  const auto logprob = [&](float logit) { return static_cast<float>(double{logit} - log_total); };
  token->logprob = logprob(logits[static_cast<size_t>(token->id)]);
  if (options_.logprobs == 0) return;
  SelectBest(logits, static_cast<size_t>(options_.logprobs));
  for (const Candidate& candidate : candidates_) {
    token->top.emplace_back(candidate.id, logprob(candidate.logit));
  }
}

}  // namespace sluice
