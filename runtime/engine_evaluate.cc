// Teacher-forced logits of given tokens.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/engine_impl.h"

namespace sluice {

Status EngineImpl::Evaluate(std::span<const std::vector<int32_t>> sequences,
                            const LogitsCallback& on_logits) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto sequence = static_cast<int64_t>(i);
    const Status status = RunPasses(sequences[i], 0, [&](int64_t position, int64_t count) {
      return HandOutLogits(sequence, position, count, on_logits);
    });
    if (!status.ok()) return status.WithContext(fmt::format("sequence {}", i));
  }
  return Status();
}

Status EngineImpl::EvaluateInParts(std::span<const int32_t> sequence, int64_t first_position,
                                   const LogitsPartCallback& on_part) {
  return RunPasses(sequence, first_position, [&](int64_t position, int64_t count) {
    return forward_->LogitsInParts(0, count, logits(),
                                   [&](int64_t row, int64_t first_id, std::span<const float> part) {
                                     return on_part(position + row, first_id, part);
                                   });
  });
}

Status EngineImpl::HandOutLogits(int64_t sequence, int64_t position, int64_t count,
                                 const LogitsCallback& on_logits) {
  const auto vocab_size = static_cast<size_t>(info_.vocab_size);
  for (int64_t first = 0; first < count; first += kLogitRows) {
    const int64_t rows = std::min(kLogitRows, count - first);
    if (Status s = forward_->Logits(first, rows, logits().data()); !s.ok()) return s;
    for (int64_t row = 0; row < rows; ++row) {
      if (!on_logits(sequence, position + first + row,
                     logits().subspan(static_cast<size_t>(row) * vocab_size, vocab_size))) {
        return Status(ErrorCode::kCancelled, "the evaluation was cancelled");
      }
    }
  }
  return Status();
}

// Nothing is generated, so a sequence may fill the context.
Status EngineImpl::CheckSequence(std::span<const int32_t> tokens) const {
  if (tokens.empty()) return Status(ErrorCode::kInvalidArgument, "the sequence has no tokens");
  if (static_cast<int64_t>(tokens.size()) > info_.context_tokens) {
    return Status(ErrorCode::kLimitExceeded,
                  fmt::format("the sequence has {} tokens, the context {}", tokens.size(),
                              info_.context_tokens));
  }
  return CheckIds(tokens);
}

Status EngineImpl::RunPasses(std::span<const int32_t> tokens, int64_t first_wanted,
                             const std::function<Status(int64_t, int64_t)>& on_pass) {
  scheduler_->DropKept();
  const auto total = static_cast<int64_t>(tokens.size());
  Status status = CheckSequence(tokens);
  BlockTable table;
  if (status.ok()) status = kv_cache_->Reserve(&table, total, 0);
  for (int64_t begin = 0; begin < total && status.ok(); begin += forward_->max_batch_tokens()) {
    const int64_t end = std::min(begin + forward_->max_batch_tokens(), total);
    Batch batch;
    for (int64_t position = begin; position < end; ++position) {
      batch.ids.push_back(tokens[static_cast<size_t>(position)]);
      batch.positions.push_back(static_cast<int32_t>(position));
      batch.slots.push_back(KvCache::Slot(table, position));
      batch.lengths.push_back(position + 1);
      batch.block_tables.push_back(table.blocks.data());
      if (position >= first_wanted) batch.wanted.push_back(position - begin);
    }
    status = forward_->Run(batch, &cancel_all_);
    if (!status.ok()) cancel_all_ = false;
    const auto wanted = static_cast<int64_t>(batch.wanted.size());
    if (status.ok() && wanted > 0) status = on_pass(end - wanted, wanted);
  }
  kv_cache_->Truncate(&table, 0);
  return status;
}

}  // namespace sluice
