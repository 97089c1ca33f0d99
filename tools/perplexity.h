// Perplexity as llama.cpp counts it: whole windows, the second half of each scored.
#ifndef SLUICE_TOOLS_PERPLEXITY_H_
#define SLUICE_TOOLS_PERPLEXITY_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "formats/status.h"

namespace sluice {

// Whole windows of `context` tokens of the text (its ids without BOS), the rest dropped; at most
// `max_windows` unless 0. With a BOS it stands before the text, and in place of the first token of
// every window. Error: kInvalidArgument when there is not one window, or `context` < 4.
Result<std::vector<std::vector<int32_t>>> PerplexityWindows(std::span<const int32_t> text,
                                                            std::optional<int32_t> bos,
                                                            int64_t context, int64_t max_windows);

// Whether the prediction made at `position` of a window counts: from its middle to the last but
// one, which is 256 to 510 of 512.
inline bool IsScored(int64_t position, int64_t context) {
  return position >= context / 2 && position < context - 1;
}

// -log of the softmax of a row of logits at one id, in float64, from parts of the row in the order
// of ids: to the bit the same however the row is divided.
class NegativeLogLikelihood {
 public:
  explicit NegativeLogLikelihood(int32_t id) : id_(id) {}
  void Add(int64_t first_id, std::span<const float> logits);
  // NaN if a logit is NaN, or the id was in no part.
  double value() const;

 private:
  int32_t id_;
  double at_id_ = std::numeric_limits<double>::quiet_NaN();
  double largest_ = -std::numeric_limits<double>::infinity();
  double sum_ = 0;  // of exp(logit - largest_)
};

class PerplexitySum {
 public:
  // Error: kInternal when it is not finite.
  Status Add(double negative_log_likelihood);
  double perplexity() const;
  int64_t count() const { return count_; }

 private:
  double sum_ = 0;
  int64_t count_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_TOOLS_PERPLEXITY_H_
