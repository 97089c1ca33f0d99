#include "runtime/scheduler.h"

#include <algorithm>

namespace sluice {

Scheduler::Scheduler(KvCache* kv_cache, int64_t max_sequences, int64_t max_batch_tokens,
                     bool only_prompts)
    : kv_cache_(kv_cache),
      max_sequences_(max_sequences),
      max_batch_tokens_(max_batch_tokens),
      only_prompts_(only_prompts) {}

bool Scheduler::Next(Batch* batch, std::vector<Sequence*>* sampled) {
  *batch = Batch();
  sampled->clear();
  in_batch_.clear();
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < max_sequences_ &&
         Admit(waiting_.front().get())) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  for (const bool decoding : {true, false}) {
    if (!decoding) batch->first_prompt_token = batch->tokens();
    for (const std::unique_ptr<Sequence>& sequence : running_) {
      const int64_t left = sequence->size() - sequence->computed;
      const int64_t room = max_batch_tokens_ - batch->tokens();
      const bool decodes = sequence->computed >= sequence->prompt_tokens;
      if (decodes == decoding && room > 0) {
        Append(sequence.get(), std::min(left, room), batch, sampled);
      }
    }
  }
  return batch->tokens() > 0;
}

void Scheduler::Append(Sequence* sequence, int64_t count, Batch* batch,
                       std::vector<Sequence*>* sampled) {
  for (int64_t position = sequence->computed; position < sequence->computed + count; ++position) {
    batch->ids.push_back(sequence->tokens[static_cast<size_t>(position)]);
    batch->positions.push_back(static_cast<int32_t>(position));
    batch->slots.push_back(KvCache::Slot(sequence->table, position));
    batch->lengths.push_back(position + 1);
    batch->block_tables.push_back(sequence->table.blocks.data());
  }
  in_batch_.emplace_back(sequence, count);
  if (sequence->computed + count == sequence->size()) {
    batch->wanted.push_back(batch->tokens() - 1);
    sampled->push_back(sequence);
  }
}

void Scheduler::Commit() {
  for (auto& [sequence, count] : in_batch_) sequence->computed += count;
  in_batch_.clear();
}

bool Scheduler::Admit(Sequence* sequence) {
  TakeOverPrefix(sequence);
  // What was kept for later gives way to what can run now, the oldest first.
  while (!kv_cache_->Reserve(&sequence->table, sequence->max_tokens, sequence->computed).ok()) {
    if (kept_.empty()) return false;
    kv_cache_->Truncate(&kept_.front().table, 0);
    kept_.pop_front();
  }
  sequence->admitted = std::chrono::steady_clock::now();
  return true;
}

void Scheduler::TakeOverPrefix(Sequence* sequence) {
  if (!sequence->table.blocks.empty()) return;  // tried before, and waited for blocks
  int64_t longest = 0;
  auto best = kept_.end();
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept) {
    const auto end = std::mismatch(kept->tokens.begin(), kept->tokens.end(),
                                   sequence->tokens.begin(), sequence->tokens.end());
    int64_t common = end.first - kept->tokens.begin();
    if (only_prompts_) common = std::min(common, kept->prompt_tokens);
    if (common > longest) {
      longest = common;
      best = kept;
    }
  }
  // The last token of the prompt is always computed: its logits are wanted.
  longest = std::min(longest, sequence->size() - 1);
  if (longest == 0) return;
  sequence->table = std::move(best->table);
  kept_.erase(best);
  kv_cache_->Truncate(&sequence->table, longest);
  sequence->computed = longest;
  sequence->completion.timings.cached_tokens = longest;
}

void Scheduler::Retire(Sequence* sequence) {
  if (sequence->request.keep_cache && sequence->computed > 0) {
    sequence->tokens.resize(static_cast<size_t>(sequence->computed));
    kv_cache_->Truncate(&sequence->table, sequence->computed);
    kept_.push_back(
        {std::move(sequence->tokens), std::move(sequence->table), sequence->prompt_tokens});
    if (static_cast<int64_t>(kept_.size()) > max_sequences_) {
      kv_cache_->Truncate(&kept_.front().table, 0);
      kept_.pop_front();
    }
  } else {
    kv_cache_->Truncate(&sequence->table, 0);
  }
}

std::vector<std::unique_ptr<Sequence>> Scheduler::TakeFinished() {
  std::vector<std::unique_ptr<Sequence>> finished;
  const auto take = [&finished](auto& list) {
    for (auto it = list.begin(); it != list.end();) {
      if ((*it)->finished()) {
        finished.push_back(std::move(*it));
        it = list.erase(it);
      } else {
        ++it;
      }
    }
  };
  take(running_);
  take(waiting_);
  for (const std::unique_ptr<Sequence>& sequence : finished) Retire(sequence.get());
  return finished;
}

void Scheduler::DropKept() {
  for (Kept& kept : kept_) kv_cache_->Truncate(&kept.table, 0);
  kept_.clear();
}

std::vector<std::unique_ptr<Sequence>> Scheduler::TakeAll() {
  std::vector<std::unique_ptr<Sequence>> all = std::move(running_);
  running_.clear();
  for (std::unique_ptr<Sequence>& sequence : waiting_) all.push_back(std::move(sequence));
  waiting_.clear();
  in_batch_.clear();
  for (const std::unique_ptr<Sequence>& sequence : all) Retire(sequence.get());
  return all;
}

std::vector<Sequence*> Scheduler::sequences() const {
  std::vector<Sequence*> all;
  for (const auto& sequence : running_) all.push_back(sequence.get());
  for (const auto& sequence : waiting_) all.push_back(sequence.get());
  return all;
}

}  // namespace sluice
