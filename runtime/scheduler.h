// Which requests run in a pass, and with how many tokens.
#ifndef SLUICE_RUNTIME_SCHEDULER_H_
#define SLUICE_RUNTIME_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/batch.h"
#include "runtime/kv_cache.h"
#include "runtime/sequence.h"

namespace sluice {

// First come, first served, continuous batching (Yu et al., 2022). A sequence is admitted when the
// blocks for its whole length can be reserved, so a running one never has to give way. A pass takes
// one token of every sequence that decodes, then as much of the prompts as the batch has room for.
// Thread-compatible.
class Scheduler {
 public:
  // REQUIRES: max_batch_tokens >= max_sequences, or the last of those that decode wait for the
  // others. `only_prompts`: of an ended sequence a later prompt takes over what was computed as a
  // prompt only, because tokens that were generated are computed in another way.
  Scheduler(KvCache* kv_cache, int64_t max_sequences, int64_t max_batch_tokens,
            bool only_prompts = false);

  void Add(std::unique_ptr<Sequence> sequence) { waiting_.push_back(std::move(sequence)); }

  // Admits what can run, and fills `batch`. The sequences whose logits are wanted stand in
  // `sampled`, in the order of batch.wanted. False: nothing can run.
  bool Next(Batch* batch, std::vector<Sequence*>* sampled);

  // After the last batch was computed: its tokens are in the cache.
  void Commit();

  // Takes finished sequences out. Their blocks are given back, or kept for a later prompt.
  std::vector<std::unique_ptr<Sequence>> TakeFinished();
  // Gives back the blocks that were kept for later prompts.
  void DropKept();
  // Takes everything out.
  std::vector<std::unique_ptr<Sequence>> TakeAll();

  // Waiting and running.
  std::vector<Sequence*> sequences() const;

 private:
  // What an ended sequence left in the cache.
  struct Kept {
    std::vector<int32_t> tokens;
    BlockTable table;
    int64_t prompt_tokens;
  };

  bool Admit(Sequence* sequence);
  void TakeOverPrefix(Sequence* sequence);
  void Append(Sequence* sequence, int64_t count, Batch* batch, std::vector<Sequence*>* sampled);
  void Retire(Sequence* sequence);

  KvCache* kv_cache_;
  int64_t max_sequences_;
  int64_t max_batch_tokens_;
  bool only_prompts_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::deque<Kept> kept_;  // oldest first
  std::vector<std::pair<Sequence*, int64_t>> in_batch_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_SCHEDULER_H_
