// How the next token is chosen from logits.
#ifndef SLUICE_SAMPLING_H_
#define SLUICE_SAMPLING_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace sluice {

// Applied in this order: logit bias and penalties, top-k, top-p, min-p, temperature, draw.
struct SamplingOptions {
  float temperature = 0.8f;        // >= 0; 0: the most probable token (the lowest id among equals)
  int32_t top_k = 40;              // >= 0; 0: off
  float top_p = 0.95f;             // (0, 1]; 1: off
  float min_p = 0.05f;             // [0, 1]; 0: off; of the largest probability
  float repeat_penalty = 1.0f;     // > 0; 1: off; divides positive and multiplies negative logits
  int32_t repeat_last_n = 64;      // tokens that the penalties look back on; 0: none, -1: all
  float presence_penalty = 0.0f;   // [-2, 2]; subtracted once
  float frequency_penalty = 0.0f;  // [-2, 2]; subtracted for each occurrence
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added to its logit
  uint64_t seed = 0;
  // n >= 0: report log-probabilities, of the n most probable tokens too (at most 100); -1: none.
  int32_t logprobs = -1;
};

struct SampledToken {
  int32_t id = 0;
  // Natural logarithm of the probability under the model's own distribution (softmax of the
  // unmodified logits); 0 where logprobs was -1, because it takes a sum over the vocabulary.
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // id, logprob; most probable first
};

}  // namespace sluice

#endif  // SLUICE_SAMPLING_H_
