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

double NegativeLogLikelihood(std::span<const float> logits, int32_t id) {
  double largest = logits[0];
  for (float logit : logits) {
    if (!(logit <= largest)) largest = logit;
  }
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - largest);
  return std::log(sum) + largest - logits[id];
}

Status PerplexitySum::Add(std::span<const float> logits, int32_t next_id) {
  const double loss = NegativeLogLikelihood(logits, next_id);
  if (!std::isfinite(loss)) {
    return Status(ErrorCode::kInternal, fmt::format("the logits are not finite ({})", loss));
  }
  sum_ += loss;
  ++count_;
  return Status();
}

double PerplexitySum::perplexity() const {
  return std::exp(sum_ / static_cast<double>(std::max<int64_t>(1, count_)));
}

}  // namespace sluice
