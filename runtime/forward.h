// THE forward pass, the only one: prefill, decode, every architecture and every placement.
#ifndef SLUICE_RUNTIME_FORWARD_H_
#define SLUICE_RUNTIME_FORWARD_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "formats/model_config.h"
#include "formats/status.h"
#include "kernels/cuda/f16_products.h"
#include "kernels/ops.h"
#include "loaders/architecture.h"
#include "offload/trace.h"
#include "offload/weight_store.h"
#include "runtime/activations.h"
#include "runtime/batch.h"
#include "runtime/compute.h"
#include "runtime/device_scratch.h"
#include "runtime/kv_cache.h"
#include "runtime/parallel.h"
#include "runtime/pass_graphs.h"
#include "runtime/step_fusion.h"

namespace sluice {

// Executes a model's description over a batch: for each weight group acquire, run its steps,
// release. Uses the objects it is given, owns none but its scratch. One thread at a time.
class Forward {
 public:
  // Checks that the file holds every tensor of the description in the right shape. No sequence
  // becomes longer than context_tokens. On a device, `store` gives pointers of its memory in the
  // layout of its operations (offload/device_store.h), and the cache lies there. With
  // `bf16_prompts` the products of a batch's prompt tokens are those of matmul_bf16, but for the
  // head's. REQUIRES for that: CheckBf16 of the operations. With `compute.f16_library`, which is
  // not open yet, they are those of F16Products, and what it takes of the device is counted there.
  // Errors: kCorrupt naming the tensor, kOutOfMemory, kUnsupported for what the device's operations
  // do not know, those of the device.
  static Result<std::unique_ptr<Forward>> Create(const ModelConfig& config,
                                                 const ModelDescription& description,
                                                 WeightStore* store, const Compute& compute,
                                                 KvCache* kv_cache, ThreadTeam* team,
                                                 int64_t max_batch_tokens, int64_t context_tokens,
                                                 bool bf16_prompts = false);

  int64_t max_batch_tokens() const { return activations_.max_tokens(); }
  // Where the time of each group goes; null: nowhere. Outlives the forward pass.
  void set_trace(Trace* trace) { trace_ = trace; }
  uint64_t activation_bytes() const { return activations_.size_bytes(); }

  // Runs all layers over 1 to max_batch_tokens tokens, and leaves the hidden state of the wanted
  // ones for Logits. Errors: those of WeightLease::Take; kCancelled soon after *cancel became
  // true; kInvalidArgument for trees of only some tokens. After an error the cache holds garbage in
  // the batch's slots, and nothing else changed. On a device it returns when the work is queued;
  // what goes wrong there is an error of Logits or of a later Run.
  Status Run(const Batch& batch, const std::atomic<bool>* cancel);

  // Logits of the wanted tokens [first, first + count) of the last Run, in their order:
  // [count, vocabulary], count at most kLogitRows, in memory of the host (pinned is faster).
  // Errors: those of WeightLease::Take and of the device.
  Status Logits(int64_t first, int64_t count, float* logits);

  // The same rows, in any number, part by part as the head's weights come: `memory`, of the host
  // and kLogitRows x vocabulary large, holds some of the ids of all rows, so that weights that
  // stream come once for as many rows as there are ids. Calls for different rows may come from
  // several threads at once; those of one row come in the order of ids, and make it whole. False
  // ends it. Errors: as Logits; kCancelled.
  using LogitsPartCallback =
      std::function<bool(int64_t row, int64_t first_id, std::span<const float> logits)>;
  Status LogitsInParts(int64_t first, int64_t count, std::span<float> memory,
                       const LogitsPartCallback& on_part);

  // How many of a row's logits BestLogits gives at most; 0 where it cannot be called.
  int64_t most_best_logits() const;
  // The same rows, but only the `each` best logits of each, so that the others need not leave the
  // device. Valid until the next call.
  Result<BestRows> BestLogits(int64_t first, int64_t count, int64_t each);

 private:
  struct Group {
    GroupId id = 0;
    const GroupDescription* description = nullptr;
    std::vector<TensorId> tensors;  // by TensorIndex
  };

  // What decides how attention is divided, and what a device is told of a batch that it cannot look
  // at.
  struct Longest {
    int64_t length = 0;
    int64_t run = 0;  // tokens in a row that share a block table
  };

  // The group that is being computed: its lease and what its steps run on.
  struct Pass {
    const Group& group;
    const WeightLease& lease;
    int64_t tokens;
    int64_t prompt_begin;  // tokens from here on are multiplied in bf16
    int64_t first_hidden;  // row of kHidden that belongs to the first token
    const std::atomic<bool>* cancel;
    // Channels in each group of int8 that the step's result is wanted in too; 0: it is not.
    int64_t result_group = 0;
  };

  // out = tensor * in + bias; or out += that.
  struct Product {
    TensorId tensor;
    Buffer in;
    const float* bias;  // or null
    bool add_to_out;
    float* out;
    int64_t out_stride;
  };

  Forward(const ModelConfig& config, const ModelDescription& description, WeightStore* store,
          const Compute& compute, KvCache* kv_cache, ThreadTeam* team, Activations activations,
          int64_t context_tokens, bool bf16_prompts);

  Status Bind();
  // Memory and copies that the operations of a device need.
  Status PrepareDevice(int64_t context_tokens);
  // Opens the library for prompts in f16, and lets it work once on each shape.
  Status PrepareF16();
  // Rows and columns of a matrix, and the stride of what it is multiplied into.
  using Shape = std::array<int64_t, 3>;
  Status MultiplyOnce(const Group& group, std::set<Shape>* done);
  // The batch's arrays and embeddings where the operations read them.
  Status Send(const Batch& batch);
  static Longest LongestOf(const Batch& batch);
  // All groups but the head; on a device as a whole, where the pass is one of many alike.
  Status RunLayers(const Batch& batch, const std::atomic<bool>* cancel);
  Status RunGroups(const Batch& batch, const std::atomic<bool>* cancel);
  Status KeepWanted(const Batch& batch);
  Status MoveRow(const float* from, float* to);
  // Items of an operation that a thread takes at a time; all where a device divides them itself.
  int64_t HostRangeOf(int64_t items) const;
  int64_t RangeOf(int64_t items) const;
  int64_t RangeOf(int64_t items, int64_t grain) const;
  void SetHeadInUse(bool in_use);
  Status ComputeLogits(int64_t first, int64_t count, float* out);
  Status HeadInParts(const Pass& pass, std::span<float> memory, const LogitsPartCallback& on_part);
  // Some tiles of a part of the head, into [tokens, stride].
  Status MultiplyHead(const Pass& pass, const WeightPart& part, int64_t tile_begin,
                      int64_t tile_end, float* out, int64_t stride);
  void SoftcapLogits(float* logits, int64_t values);
  // [rows, ids], of the ids from first_id on.
  Status HandOut(std::span<const float> logits, int64_t rows, int64_t first_id,
                 const LogitsPartCallback& on_part);
  Status TraceGroup(const Group& group, Trace::Clock::time_point begin, int64_t tokens);
  Status GatherEmbeddings(const Batch& batch);
  // Rows of a gathered table into a buffer as wide as kHidden; on a device through that part of the
  // staging memory.
  Status GatherRows(TensorId table, const std::vector<int32_t>& rows, Buffer out, size_t staging);
  // The first token's row of a step's input.
  const float* InputOf(const Pass& pass, Buffer buffer) const;
  Status RunSteps(const Pass& pass);
  // The step at `index`, or as many from there on as the table takes in one call; how many.
  Result<size_t> RunStepsFrom(const Pass& pass, size_t index);
  Status RunPrepared(const Pass& pass, const PreparedAttention& steps);
  // What the result of a step is wanted in (Pass::result_group).
  int64_t ResultGroupOf(const Pass& pass, size_t index) const;
  // Where it goes; none if it is not wanted. WrittenQuantized says that it is there.
  std::optional<QuantizedActivations> QuantizedResult(const Pass& pass, Buffer buffer) const;
  void WrittenQuantized(const Pass& pass, Buffer buffer);
  Status RunStep(const Pass& pass, const RmsNormStep& step);
  Status RunStep(const Pass& pass, const LayerNormStep& step);
  Status RunStep(const Pass& pass, const LinearStep& step);
  Status RunStep(const Pass& pass, const RopeStep& step);
  Status RunStep(const Pass& pass, const AttentionStep& step);
  Status RunStep(const Pass& pass, const ActivationStep& step);
  // Linear steps of one input.
  Status RunLinears(const Pass& pass, std::span<const Step> steps);
  // Whether the table multiplies the matrices of these in one call.
  bool TakesTogether(const Pass& pass, std::span<const Step> steps) const;
  RopeArgs ArgsOf(const Pass& pass, const RopeStep& step) const;
  StoreKvArgs StoreArgsOf(const Pass& pass, const AttentionStep& step) const;
  // Attention over a cache that has the tokens of the pass.
  Status Attend(const Pass& pass, const AttentionStep& step);
  // Calls `attention` for the items, divided among the threads.
  void ForItems(int64_t items, int64_t grain, const AttentionArgs& args,
                void (*attention)(const AttentionArgs&, CUstream_st*));
  Result<Product> ProductOf(const Pass& pass, const LinearStep& step);
  Status Matmul(const Pass& pass, const Product& product);
  // Of tiles [begin, end) of a part, for the first `tokens` of the pass.
  MatmulArgs ArgsOf(const Pass& pass, const Product& product, const WeightPart& part,
                    const std::byte* tiles, int64_t begin, int64_t end, int64_t tokens) const;
  // The first `tokens` of the pass as a matrix takes them; made unless they are there.
  QuantizedActivations QuantizeFor(const Pass& pass, Buffer buffer, const TileLayout& matrix,
                                   int64_t tokens);
  void Quantize(const Pass& pass, Buffer buffer, int64_t cols, int64_t group_size, int64_t tokens);
  // Those from `first` on.
  void RoundBf16(Buffer buffer, int64_t cols, int64_t first, int64_t tokens);
  void RoundF16(Buffer buffer, int64_t cols, int64_t first, int64_t tokens);
  // A vector of the model in float32: where it lies, or in that scratch until the next call for it.
  Result<const float*> Vector(const Pass& pass, TensorIndex index, size_t scratch = 0);
  void Written(Buffer buffer);

  const ModelConfig config_;
  const ModelDescription description_;
  WeightStore* store_;
  const Compute compute_;
  const OpTable* ops_;
  const bool bf16_prompts_;
  KvCache* kv_cache_;
  ThreadTeam* team_;
  Activations activations_;
  std::vector<std::vector<float>> rope_frequencies_;  // by index of description_.ropes
  std::vector<Group> groups_;             // those with steps, in order; the head is the last
  std::optional<DeviceScratch> scratch_;  // none on the host
  std::optional<PassGraphs> graphs_;      // none on the host
  std::optional<F16Products> f16_;        // none without prompts in f16
  BatchArrays arrays_;                    // of the batch that is being computed
  Longest longest_;                       // of that batch
  int64_t context_tokens_;
  TensorId embedding_ = 0;
  TensorId head_ = 0;
  TensorId positions_ = kNoIndex;
  bool head_in_use_ = true;
  Trace* trace_ = nullptr;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_FORWARD_H_
