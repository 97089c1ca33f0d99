// The loop of the engine: requests, passes, samples.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "kernels/ops.h"
#include "runtime/engine_impl.h"

namespace sluice {
Status EngineImpl::CheckRequest(const Request& request) const {
  if (request.prompt.empty()) {
    return Status(ErrorCode::kInvalidArgument, "the prompt has no tokens");
  }
  const auto prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens >= info_.context_tokens) {
    return Status(ErrorCode::kLimitExceeded,
                  fmt::format("the prompt has {} tokens; a context of {} leaves room for {}",
                              prompt_tokens, info_.context_tokens, info_.context_tokens - 1));
  }
  if (Status s = CheckIds(request.prompt); !s.ok()) return s;
  if (!request.stop.empty() && !tokenizer_) {
    return Status(ErrorCode::kUnsupported, "stop strings need a tokenizer");
  }
  return Validate(request.sampling, static_cast<int32_t>(info_.vocab_size));
}

Status EngineImpl::CheckIds(std::span<const int32_t> ids) const {
  for (int32_t id : ids) {
    if (id < 0 || id >= info_.vocab_size) {
      return Status(
          ErrorCode::kInvalidArgument,
          fmt::format("token id {} is not in the vocabulary of {}", id, info_.vocab_size));
    }
  }
  return Status();
}

Result<uint64_t> EngineImpl::Submit(Request request, DeltaCallback on_delta) {
  if (Status status = CheckRequest(request); !status.ok()) return status;
  // A late cancellation of what has ended must not reach what comes next.
  if (scheduler_->sequences().empty()) cancel_all_ = false;
  auto sequence = std::make_unique<Sequence>();
  sequence->id = next_id_++;
  sequence->on_delta = std::move(on_delta);
  sequence->tokens = request.prompt;
  sequence->prompt_tokens = sequence->size();
  const int64_t room = info_.context_tokens - sequence->size();
  const int64_t wanted = request.max_new_tokens < 0 ? room : request.max_new_tokens;
  sequence->max_tokens = sequence->size() + std::min(wanted, room);
  sequence->completion.prompt_tokens = sequence->size();
  sequence->sampler.emplace(request.sampling, static_cast<int32_t>(info_.vocab_size));
  for (int32_t id : request.prompt) sequence->sampler->Accept(id);
  if (tokenizer_) {
    sequence->detokenizer.emplace(*tokenizer_, /*skip_special=*/true,
                                  /*at_start=*/!request.continues_text);
  }
  sequence->stop_matcher.emplace(request.stop);
  sequence->request = std::move(request);
  const uint64_t id = sequence->id;
  if (sequence->max_tokens == sequence->size()) {  // nothing was asked for
    sequence->completion.finish_reason = FinishReason::kLength;
  }
  scheduler_->Add(std::move(sequence));
  return id;
}

void EngineImpl::Cancel(uint64_t request_id) noexcept {
  if (request_id == 0) {
    cancel_all_.store(true, std::memory_order_relaxed);
    return;
  }
  const std::lock_guard lock(cancel_mutex_);
  cancelled_.push_back(request_id);
}

void EngineImpl::ApplyCancellations() {
  const bool all = cancel_all_.exchange(false);
  std::vector<uint64_t> ids;
  {
    const std::lock_guard lock(cancel_mutex_);
    ids.swap(cancelled_);
  }
  if (!all && ids.empty()) return;
  for (Sequence* sequence : scheduler_->sequences()) {
    if (!sequence->finished() &&
        (all || std::find(ids.begin(), ids.end(), sequence->id) != ids.end())) {
      sequence->completion.finish_reason = FinishReason::kCancelled;
    }
  }
}

Result<bool> EngineImpl::Step() {
  ApplyCancellations();
  CollectFinished();
  Batch batch;
  std::vector<Sequence*> sampled;
  if (!scheduler_->Next(&batch, &sampled)) return false;
  Status status = forward_->Run(batch, &cancel_all_);
  if (status.code() == ErrorCode::kCancelled) {
    ApplyCancellations();
    CollectFinished();
    return true;
  }
  if (status.ok()) scheduler_->Commit();
  const auto wanted = static_cast<int64_t>(sampled.size());
  for (int64_t first = 0; first < wanted && status.ok(); first += kLogitRows) {
    const int64_t count = std::min(kLogitRows, wanted - first);
    status = SampleNext(
        first, std::span(sampled).subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
  }
  if (!status.ok()) {
    scheduler_->TakeAll();
    return status;
  }
  CollectFinished();
  return true;
}

// So many of the best logits serve all of these sequences; 0: one needs all logits, or there is no
// device that finds them.
int64_t EngineImpl::BestWanted(std::span<Sequence* const> sequences) const {
  int64_t wanted = 0;
  for (const Sequence* sequence : sequences) {
    const int64_t its = sequence->sampler->BestWanted(forward_->most_best_logits());
    if (its == 0) return 0;
    wanted = std::max(wanted, its);
  }
  return wanted;
}

// Chooses a token for each of these sequences, whose rows of the last pass begin with `first`.
Status EngineImpl::SampleNext(int64_t first, std::span<Sequence* const> sequences) {
  const auto count = static_cast<int64_t>(sequences.size());
  const auto vocab_size = static_cast<size_t>(info_.vocab_size);
  if (const int64_t each = BestWanted(sequences); each > 0) {
    const Result<BestRows> best = forward_->BestLogits(first, count, each);
    if (!best.ok()) return best.status();
    return TakeTokens(sequences, [&](size_t i) {
      const auto row = static_cast<size_t>(each);
      return sequences[i]->sampler->SampleBest({{best->logits + i * row, row},
                                                {best->ids + i * row, row},
                                                double{best->weight_sums[i]}});
    });
  }
  if (Status s = forward_->Logits(first, count, logits().data()); !s.ok()) return s;
  return TakeTokens(sequences, [&](size_t i) {
    return sequences[i]->sampler->Sample(logits().subspan(i * vocab_size, vocab_size));
  });
}

// Calls sample(i) for each of these sequences, on all threads, and hands the tokens out one after
// another.
Status EngineImpl::TakeTokens(std::span<Sequence* const> sequences,
                              const std::function<Result<SampledToken>(size_t)>& sample) {
  std::vector<std::optional<Result<SampledToken>>> tokens(sequences.size());
  team_->For(static_cast<int64_t>(sequences.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      tokens[i] = sample(i);
    }
  });
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (Status status = TakeToken(sequences[i], std::move(*tokens[i])); !status.ok()) return status;
  }
  return Status();
}

Status EngineImpl::TakeToken(Sequence* sequence, Result<SampledToken> token) {
  if (!token.ok()) return token.status().WithContext(fmt::format("request {}", sequence->id));
  sequence->sampler->Accept(token->id);
  const auto now = std::chrono::steady_clock::now();
  Timings& timings = sequence->completion.timings;
  if (sequence->completion.tokens.empty()) {
    sequence->first_token = now;
    timings.prefill_s = SecondsBetween(sequence->admitted, now);
    timings.prefill_tokens = sequence->completion.prompt_tokens - timings.cached_tokens;
  } else {
    timings.decode_s = SecondsBetween(sequence->first_token, now);
    ++timings.decode_tokens;
  }
  sequence->tokens.push_back(token->id);
  sequence->completion.tokens.push_back(token->id);
  Deliver(sequence, *token);
  sequence->completion.details.push_back(std::move(*token));
  return Status();
}

void EngineImpl::Deliver(Sequence* sequence, const SampledToken& token) {
  Completion& completion = sequence->completion;
  const bool ended = tokenizer_ && !sequence->request.ignore_eos &&
                     std::find(tokenizer_->eos_ids().begin(), tokenizer_->eos_ids().end(),
                               token.id) != tokenizer_->eos_ids().end();
  std::string text;
  if (ended) {
    completion.finish_reason = FinishReason::kStop;
  } else if (sequence->detokenizer) {
    text = sequence->stop_matcher->Append(sequence->detokenizer->Append(token.id));
    if (sequence->stop_matcher->stopped()) {
      completion.finish_reason = FinishReason::kStop;
      completion.stop_string = sequence->stop_matcher->stop_string();
    }
  }
  if (!sequence->finished() && sequence->size() == sequence->max_tokens) {
    completion.finish_reason = FinishReason::kLength;
  }
  if (sequence->finished() && completion.stop_string.empty() && sequence->detokenizer) {
    text += sequence->stop_matcher->Append(sequence->detokenizer->Finish());
    text += sequence->stop_matcher->Finish();
  }
  completion.text += text;
  if (sequence->on_delta && !sequence->on_delta({text, token}) && !sequence->finished()) {
    completion.finish_reason = FinishReason::kCancelled;
  }
}

void EngineImpl::CollectFinished() {
  for (std::unique_ptr<Sequence>& sequence : scheduler_->TakeFinished()) {
    completions_[sequence->id] = std::make_unique<Completion>(std::move(sequence->completion));
  }
}

std::unique_ptr<Completion> EngineImpl::TakeCompletion(uint64_t request_id) {
  const auto found = completions_.find(request_id);
  if (found == completions_.end()) return nullptr;
  std::unique_ptr<Completion> completion = std::move(found->second);
  completions_.erase(found);
  return completion;
}

Result<Completion> EngineImpl::Generate(const Request& request, const DeltaCallback& on_delta) {
  Result<uint64_t> id = Submit(request, on_delta);
  if (!id.ok()) return id.status();
  while (true) {
    Result<bool> worked = Step();
    if (!worked.ok()) return worked.status();
    if (std::unique_ptr<Completion> completion = TakeCompletion(*id)) return std::move(*completion);
    if (!*worked) return Status(ErrorCode::kInternal, "a request that cannot run was accepted");
  }
}

}  // namespace sluice
