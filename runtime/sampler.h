// From logits to a token.
#ifndef SLUICE_RUNTIME_SAMPLER_H_
#define SLUICE_RUNTIME_SAMPLER_H_

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "formats/status.h"
#include "sluice/sampling.h"

namespace sluice {

// Every field within its range (sluice/sampling.h), no NaN, token ids in the vocabulary.
// Error: kInvalidArgument naming the field.
Status Validate(const SamplingOptions& options, int32_t vocab_size);

// The sampler of one sequence. The same options, tokens and logits give the same choices on every
// machine. Thread-compatible.
class Sampler {
 public:
  // REQUIRES: Validate(options, vocab_size).ok().
  Sampler(SamplingOptions options, int32_t vocab_size);

  // Adds a token to the history that the penalties look back on: of the prompt, or a sampled one.
  void Accept(int32_t token);

  // Chooses from logits [vocab_size]. Bias and penalties come first, then top-k, top-p, min-p,
  // temperature and the draw. Error: kInternal when a logit is NaN or infinity, or all are minus
  // infinity.
  Result<SampledToken> Sample(std::span<const float> logits);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };

  void ApplyPenalties();
  void KeepTopK();
  void KeepTopP();
  void KeepMinP();
  int32_t Draw();
  SampledToken Report(std::span<const float> logits, int32_t id) const;
  uint64_t NextRandom();

  SamplingOptions options_;
  int32_t vocab_size_;
  std::vector<int32_t> history_;
  std::vector<Candidate> candidates_;
  std::unordered_map<int32_t, int32_t> counts_;  // of tokens in the window of the penalties
  uint64_t random_state_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_SAMPLER_H_
