// The engine behind sluice/engine.h.
#ifndef SLUICE_RUNTIME_ENGINE_IMPL_H_
#define SLUICE_RUNTIME_ENGINE_IMPL_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "loaders/chat_template/chat_template.h"
#include "loaders/tokenizer/tokenizer.h"
#include "offload/arena.h"
#include "offload/weight_store.h"
#include "runtime/forward.h"
#include "runtime/gpu.h"
#include "runtime/kv_cache.h"
#include "runtime/parallel.h"
#include "runtime/scheduler.h"
#include "sluice/engine.h"

namespace sluice {

inline double SecondsBetween(std::chrono::steady_clock::time_point begin,
                             std::chrono::steady_clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

// As SelectTable.
using TableSelector = Result<const OpTable*> (*)(std::string_view name);

class EngineImpl : public Engine {
 public:
  // `open_gpu` and `select_table` are for tests.
  static Result<std::unique_ptr<Engine>> Open(const EngineOptions& options,
                                              const GpuOpener& open_gpu = OpenFirstGpu,
                                              TableSelector select_table = SelectTable);

  const EngineInfo& info() const override { return info_; }
  std::vector<TierReport> tiers() const override;
  Status WriteTrace(const std::string& path) const override;
  Result<std::vector<int32_t>> Tokenize(std::string_view text, bool parse_special,
                                        bool add_special) const override;
  Result<std::string> Detokenize(std::span<const int32_t> ids) const override;
  Result<std::vector<int32_t>> ApplyChatTemplate(std::span<const Message> messages,
                                                 bool add_generation_prompt) const override;
  Result<uint64_t> Submit(Request request, DeltaCallback on_delta) override;
  Result<bool> Step() override;
  std::unique_ptr<Completion> TakeCompletion(uint64_t request_id) override;
  void Cancel(uint64_t request_id) noexcept override;
  Result<Completion> Generate(const Request& request, const DeltaCallback& on_delta) override;
  Status Evaluate(std::span<const std::vector<int32_t>> sequences,
                  const LogitsCallback& on_logits) override;
  Status EvaluateInParts(std::span<const int32_t> sequence, int64_t first_position,
                         const LogitsPartCallback& on_part) override;

 private:
  EngineImpl() = default;
  Status Load(const EngineOptions& options, const GpuOpener& open_gpu, TableSelector select_table);
  Status LoadText();
  // The weights, and all that a pass needs: on a GPU that is asked for, or that is there and holds
  // the model, else on the processor.
  Status LoadOnBestDevice(const EngineOptions& options, const GpuOpener& open_gpu);
  Status LoadOnGpu(const EngineOptions& options, const GpuOpener& open_gpu);
  Status LoadOnProcessor(const EngineOptions& options);
  Status FindF16LibraryIfWanted(const EngineOptions& options);
  Status CheckVram(const EngineOptions& options, const GpuMemory& needed);
  Status CheckRamBesideGpu(const EngineOptions& options, const GpuMemory& needed);
  void DropGpu();
  Status OpenStore(const EngineOptions& options);
  Status MakeForward(const EngineOptions& options, const Compute& compute);
  std::span<float> logits() const;  // [kLogitRows, vocabulary]
  Status CheckRequest(const Request& request) const;
  Status CheckSequence(std::span<const int32_t> tokens) const;
  Status CheckIds(std::span<const int32_t> ids) const;
  // Passes over the tokens, which want the logits from first_wanted on; after each of them
  // on_pass(position, count) of those that it wanted.
  Status RunPasses(std::span<const int32_t> tokens, int64_t first_wanted,
                   const std::function<Status(int64_t position, int64_t count)>& on_pass);
  Status HandOutLogits(int64_t sequence, int64_t position, int64_t count,
                       const LogitsCallback& on_logits);
  int64_t BestWanted(std::span<Sequence* const> sequences) const;
  Status SampleNext(int64_t first, std::span<Sequence* const> sequences);
  Status TakeTokens(std::span<Sequence* const> sequences,
                    const std::function<Result<SampledToken>(size_t)>& sample);
  Status TakeToken(Sequence* sequence, Result<SampledToken> token);
  // Hands out the text of the last token, and decides whether the sequence ends with it.
  void Deliver(Sequence* sequence, const SampledToken& token);
  void ApplyCancellations();
  void CollectFinished();

  EngineInfo info_;
  std::shared_ptr<const SluiceFile> file_;
  ModelDescription description_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  const OpTable* processor_ops_ = nullptr;  // none with isa cuda, which never falls back
  std::unique_ptr<ThreadTeam> team_;
  std::unique_ptr<Trace> trace_;  // before what writes to it
  Gpu gpu_;                       // no device: the processor; before what lies there
  std::unique_ptr<WeightStore> store_;
  std::unique_ptr<KvCache> kv_cache_;
  std::unique_ptr<Forward> forward_;
  std::unique_ptr<Scheduler> scheduler_;
  Arena logits_;         // of the host
  DeviceStream stream_;  // of the GPU's work; ends before what the work uses

  uint64_t next_id_ = 1;
  std::map<uint64_t, std::unique_ptr<Completion>> completions_;

  std::atomic<bool> cancel_all_ = false;
  std::mutex cancel_mutex_;
  std::vector<uint64_t> cancelled_;  // with cancel_mutex_
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_ENGINE_IMPL_H_
