// From logits to a token. The options are described in sluice/sampling.h.
#ifndef SLUICE_RUNTIME_SAMPLER_H_
#define SLUICE_RUNTIME_SAMPLER_H_

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "formats/status.h"
#include "runtime/random.h"
#include "sluice/sampling.h"

namespace sluice {

// kInvalidArgument, naming the option, when one is outside of its range or not a number.
Status Validate(const SamplingOptions& options, int32_t vocab_size);

// The most probable tokens of a vocabulary, for samplers that need no others.
struct BestLogits {
  std::span<const float> logits;  // largest first, equal ones by ascending id; NaN before all
  std::span<const int32_t> ids;
  double weight_sum = 0;  // of exp(logit - logits[0]) over the whole vocabulary
};

// Chooses the tokens of one sequence. The same options, seed, tokens and logits give the same
// choices on every platform. Not thread-safe.
//
// Of equal logits the lower id counts as the more probable one. Truncation (top-k, top-p, min-p)
// looks at the distribution after bias and penalties, before the temperature. top-p keeps the token
// that reaches it. Probabilities are summed in float64.
class Sampler {
 public:
  // REQUIRES: Validate(options, vocab_size).ok().
  Sampler(SamplingOptions options, int32_t vocab_size);

  // Chooses a token; does not remember it. logits: float32 [vocab_size]; -infinity bans a token.
  // Reported log-probabilities are those of the logits given, whatever the options do to them.
  // Errors: kInvalidArgument for another number of logits, or when bias and penalties ban every
  // token; kCorrupt for a NaN or +infinity among the logits, or when all are -infinity. The random
  // state moves only when a token is drawn.
  Result<SampledToken> Sample(std::span<const float> logits);

  // How many of the best logits are enough to choose the next token; 0: all are needed. At most
  // `most`.
  int64_t BestWanted(int64_t most) const;
  // As Sample, with the same choice, from BestWanted() logits or more. Errors: kCorrupt as there.
  Result<SampledToken> SampleBest(const BestLogits& best);

  // Remembers a token, of the prompt or of the answer, for the penalties.
  // REQUIRES: 0 <= token < vocab_size.
  void Accept(int32_t token);

 private:
  struct Candidate {
    int32_t id;
    float logit;
  };

  static bool IsBetter(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }

  void Adjust(std::span<const float> logits);
  void SelectBest(std::span<const float> logits, size_t count);
  void SelectNucleus();
  void SelectAll();
  // Truncates the candidates, which are the best ones in order, and draws.
  int32_t DrawFromBest();
  void TruncateByTopP(double total);
  void TruncateByMinP();
  int32_t Draw();
  void ReportProbabilities(std::span<const float> logits, SampledToken* token);

  const SamplingOptions options_;
  const int32_t vocab_size_;
  Random random_;
  std::deque<int32_t> history_;  // at most repeat_last_n tokens; unused when that is -1
  std::unordered_map<int32_t, int32_t> counts_;  // of the tokens that the penalties see
  std::vector<float> adjusted_;                  // [vocab_size] logits after bias and penalties
  std::vector<Candidate> candidates_;            // best first, unless nothing needs the order
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_SAMPLER_H_
