#include "tools/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sluice {

Result<std::vector<std::vector<int32_t>>> PerplexityWindows(std::span<const int32_t> text,
                                                            std::optional<int32_t> bos,
                                                            int64_t context, int64_t max_windows) {
  if (context < 4) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("a window of {} tokens is too short: 4 at least", context));
  }
  std::vector<int32_t> tokens;
  tokens.reserve(text.size() + 1);
  if (bos) tokens.push_back(*bos);
  tokens.insert(tokens.end(), text.begin(), text.end());
  int64_t count = static_cast<int64_t>(tokens.size()) / context;
  if (count == 0) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("the text has {} tokens, less than one window of {}", tokens.size(), context));
  }
  if (max_windows > 0) count = std::min(count, max_windows);
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) {
    windows.emplace_back(tokens.begin() + i * context, tokens.begin() + (i + 1) * context);
    if (bos) windows.back()[0] = *bos;
  }
  return windows;
}

void NegativeLogLikelihood::Add(int64_t first_id, std::span<const float> logits) {
  const int64_t place = id_ - first_id;
  if (place >= 0 && place < static_cast<int64_t>(logits.size()))
    at_id_ = logits[static_cast<size_t>(place)];
  for (float logit : logits) {
    if (logit == -std::numeric_limits<float>::infinity()) continue;  // a likelihood of 0
    if (logit <= largest_) {
      sum_ += std::exp(logit - largest_);
    } else {
      sum_ = sum_ * std::exp(largest_ - logit) + 1;
      largest_ = logit;
    }
  }
}

double NegativeLogLikelihood::value() const { return std::log(sum_) + largest_ - at_id_; }

Status PerplexitySum::Add(double negative_log_likelihood) {
  if (!std::isfinite(negative_log_likelihood)) {
    return Status(ErrorCode::kInternal,
                  fmt::format("the logits are not finite ({})", negative_log_likelihood));
  }
  sum_ += negative_log_likelihood;
  ++count_;
  return Status();
}

double PerplexitySum::perplexity() const {
  return std::exp(sum_ / static_cast<double>(std::max<int64_t>(1, count_)));
}

}  // namespace sluice
