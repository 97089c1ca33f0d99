// What a model needs, where its weights will live, and how fast it will be, before anything is
// read. Pure functions: sizes from an outline, rates from a measurement.
#ifndef SLUICE_RUNTIME_PLANNER_H_
#define SLUICE_RUNTIME_PLANNER_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/status.h"
#include "loaders/model_outline.h"
#include "offload/placement.h"
#include "runtime/machine.h"

namespace sluice {

// 2 (keys and values) x layers x KV heads x head size x bytes, summed over the layers.
uint64_t KvBytesPerToken(std::span<const LayerStateDescription> layers, int64_t bytes_per_value);
// Sequences whose caches fit beside the weights.
int64_t SequencesThatFit(uint64_t memory_bytes, uint64_t weight_bytes,
                         uint64_t kv_bytes_per_sequence);
// Weights of so many bits each, without scales.
uint64_t WeightBytes(uint64_t parameters, int64_t bits);

// What the engine holds besides weights and KV cache. The engine counts with these too.
uint64_t OverheadBytes(uint64_t metadata_bytes);
uint64_t ActivationBytes(const ModelDescription& description, int64_t max_batch_tokens,
                         int64_t vocab_size, bool with_bf16 = false);
// Of memory that is free: what may be used without a given budget.
uint64_t DefaultBudget(uint64_t available_bytes);

struct PlanRequest {
  int64_t context_tokens = 0;  // of each sequence
  int64_t sequences = 1;
  int64_t kv_bytes_per_value = 2;
  int64_t max_batch_tokens = 512;  // of the processor's
  bool f16_prompts = false;        // of a GPU, in longer passes
  uint64_t ram_bytes = 0;          // the budget
  uint64_t ring_bytes = uint64_t{128} << 20;
  bool bf16_prompts = false;  // prefill is of products in bf16, and has a buffer for them
  std::span<const PlaceRule> rules;
};

struct PlanRates {
  double drive_bytes_per_s = 0;
  // While the processor works: both use the same memory, and reading needs the processor too.
  // 0: as alone.
  double busy_drive_bytes_per_s = 0;
  double memory_bytes_per_s = 0;
  double verification_bytes_per_s = 0;
  // By type name; a type that is missing counts as the slowest. REQUIRES: where prompts are in
  // bf16, all have a rate of it.
  std::vector<MatmulRate> matmul;
};

enum class Bound : uint8_t { kDrive, kProcessor };
const char* BoundName(Bound bound);  // "drive", "processor"

struct Speed {
  double tokens_per_s = 0;
  double drive_s = 0;      // of a pass, if nothing else took time
  double processor_s = 0;  // the same
  Bound bound = Bound::kProcessor;
};

struct Plan {
  uint64_t kv_bytes_per_token = 0;
  uint64_t kv_bytes = 0;  // of all sequences
  uint64_t activation_bytes = 0;
  uint64_t overhead_bytes = 0;
  uint64_t smallest_ram_bytes = 0;  // with everything streaming
  uint64_t resident_ram_bytes = 0;  // with nothing streaming
  Placement placement;
  Speed decode;
  Speed prefill;                      // of a prompt of max_batch_tokens
  double decode_with_a_gib_more = 0;  // tokens/s; the same as decode if it would not help
};

// The memory of a plan. Errors: kDoesNotFit with the smallest budget that would do;
// kInvalidArgument as PlaceGroups.
Result<Plan> PlanMemory(const ModelOutline& outline, const PlanRequest& request);
// The same with speeds. A pass takes as long as the slower of the drive, which reads what streams
// (at its busy rate while the processor works), and the processor, which multiplies with all
// weights, verifies what streamed, and reads the cache of half the context.
Result<Plan> MakePlan(const ModelOutline& outline, const PlanRequest& request,
                      const PlanRates& rates);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_PLANNER_H_
