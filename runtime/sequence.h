// One request on its way from prompt to completion.
#ifndef SLUICE_RUNTIME_SEQUENCE_H_
#define SLUICE_RUNTIME_SEQUENCE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "loaders/tokenizer/tokenizer.h"
#include "runtime/kv_cache.h"
#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"
#include "sluice/engine.h"

namespace sluice {

struct Sequence {
  uint64_t id = 0;
  Request request;
  DeltaCallback on_delta;

  std::vector<int32_t> tokens;  // prompt, then what was generated
  int64_t prompt_tokens = 0;    // of them
  int64_t computed = 0;         // tokens whose keys and values are in the cache
  int64_t max_tokens = 0;       // prompt and answer together
  BlockTable table;

  std::optional<Sampler> sampler;
  std::optional<Detokenizer> detokenizer;  // none without a tokenizer
  std::optional<StopMatcher> stop_matcher;

  Completion completion;
  std::chrono::steady_clock::time_point admitted;
  std::chrono::steady_clock::time_point first_token;

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  bool finished() const { return completion.finish_reason != FinishReason::kNone; }
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_SEQUENCE_H_
