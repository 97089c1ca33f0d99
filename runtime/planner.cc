#include "runtime/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "formats/checked.h"
#include "kernels/ops.h"
#include "runtime/activations.h"

namespace sluice {
namespace {

// The program, its threads and the tables of a tokenizer, whose JSON is most of the metadata.
constexpr uint64_t kBaseOverhead = uint64_t{24} << 20;
constexpr uint64_t kOverheadPerMetadataByte = 6;
// Of the memory that is free: this part is left to others.
constexpr uint64_t kMarginShare = 16;
// Steps of a layer besides its matrices (norms, rotations, the exchange between threads).
constexpr double kSecondsPerLayer = 25e-6;
constexpr uint64_t kGiB = uint64_t{1} << 30;
// More than any memory: sums of a few sizes below it cannot overflow.
constexpr uint64_t kMostBytes = uint64_t{1} << 60;

// False if it is more than any memory.
bool KvCacheBytes(const PlanRequest& request, uint64_t bytes_per_token, uint64_t* bytes) {
  uint64_t tokens = 0;
  return CheckedRoundUp(static_cast<uint64_t>(request.context_tokens), kKvBlockTokens, &tokens) &&
         CheckedMul(tokens, static_cast<uint64_t>(request.sequences), &tokens) &&
         CheckedMul(tokens, bytes_per_token, bytes) && *bytes < kMostBytes;
}

std::vector<PlacementGroup> Groups(const ModelOutline& outline) {
  std::vector<PlacementGroup> groups;
  for (const OutlineGroup& group : outline.groups) {
    groups.push_back({group.kind, group.layer, group.matrix_bytes, group.vector_bytes,
                      group.largest_piece_bytes});
  }
  return groups;
}

double ProcessorSeconds(const ModelOutline& outline, const Plan& plan, const PlanRequest& request,
                        const PlanRates& rates, int64_t tokens) {
  const auto rate_of = [&](const MatmulRate& rate) {
    if (tokens == 1) return rate.one_token_bytes_per_s;
    const double batch =
        request.bf16_prompts ? rate.bf16_batch_bytes_per_s : rate.batch_bytes_per_s;
    return batch / static_cast<double>(tokens);
  };
  double slowest = std::numeric_limits<double>::infinity();
  double slowest_for_one = slowest;
  for (const MatmulRate& rate : rates.matmul) {
    slowest = std::min(slowest, rate_of(rate));
    slowest_for_one = std::min(slowest_for_one, rate.one_token_bytes_per_s);
  }
  double seconds = 0;
  for (const OutlineType& type : outline.types) {
    double rate = slowest;
    double rate_for_one = slowest_for_one;
    for (const MatmulRate& known : rates.matmul) {
      if (known.type != type.name) continue;
      rate = rate_of(known);
      rate_for_one = known.one_token_bytes_per_s;
    }
    // The embedding is gathered, not multiplied with, and of a prompt the logits of its last token
    // are wanted alone.
    const uint64_t of_all_tokens = type.size_bytes - type.embedding_bytes - type.head_bytes;
    seconds += static_cast<double>(of_all_tokens) / rate +
               static_cast<double>(type.head_bytes) / rate_for_one;
  }
  if (rates.verification_bytes_per_s > 0) {
    seconds += static_cast<double>(plan.placement.streamed_bytes) / rates.verification_bytes_per_s;
  }
  if (rates.memory_bytes_per_s > 0) {
    const double context = static_cast<double>(tokens == 1 ? request.context_tokens / 2 : 0);
    seconds += static_cast<double>(plan.kv_bytes_per_token) * context / rates.memory_bytes_per_s;
  }
  return seconds + static_cast<double>(outline.num_layers) * kSecondsPerLayer;
}

Speed Predict(const ModelOutline& outline, const Plan& plan, const PlanRequest& request,
              const PlanRates& rates, int64_t tokens) {
  Speed speed;
  speed.processor_s = ProcessorSeconds(outline, plan, request, rates, tokens);
  if (plan.placement.streamed_bytes > 0) {
    speed.drive_s = static_cast<double>(plan.placement.streamed_bytes) / rates.drive_bytes_per_s;
  }
  // What the drive does not finish while the processor works, it reads alone.
  const double busy_share =
      rates.busy_drive_bytes_per_s > 0
          ? std::min(1.0, rates.busy_drive_bytes_per_s / rates.drive_bytes_per_s)
          : 1;
  const double alone_s = std::max(0.0, speed.drive_s - busy_share * speed.processor_s);
  speed.bound = alone_s > 0 ? Bound::kDrive : Bound::kProcessor;
  speed.tokens_per_s = static_cast<double>(tokens) / (speed.processor_s + alone_s);
  return speed;
}

}  // namespace

const char* BoundName(Bound bound) { return bound == Bound::kDrive ? "drive" : "processor"; }

uint64_t KvBytesPerToken(std::span<const LayerStateDescription> layers, int64_t bytes_per_value) {
  uint64_t bytes = 0;
  for (const LayerStateDescription& layer : layers) {
    bytes += static_cast<uint64_t>(2 * layer.num_kv_heads * layer.head_dim * bytes_per_value);
  }
  return bytes;
}

int64_t SequencesThatFit(uint64_t memory_bytes, uint64_t weight_bytes,
                         uint64_t kv_bytes_per_sequence) {
  if (memory_bytes <= weight_bytes || kv_bytes_per_sequence == 0) return 0;
  return static_cast<int64_t>((memory_bytes - weight_bytes) / kv_bytes_per_sequence);
}

uint64_t WeightBytes(uint64_t parameters, int64_t bits) {
  return parameters / 8 * static_cast<uint64_t>(bits) +
         parameters % 8 * static_cast<uint64_t>(bits) / 8;
}

uint64_t OverheadBytes(uint64_t metadata_bytes) {
  return kBaseOverhead + kOverheadPerMetadataByte * metadata_bytes;
}

uint64_t ActivationBytes(const ModelDescription& description, int64_t max_batch_tokens,
                         int64_t vocab_size, bool with_bf16) {
  return Activations::SizeBytes(description, max_batch_tokens, /*on_device=*/false, with_bf16) +
         static_cast<uint64_t>(kLogitRows * vocab_size) * sizeof(float);
}

uint64_t DefaultBudget(uint64_t available_bytes) {
  return available_bytes - available_bytes / kMarginShare;
}

Result<Plan> PlanMemory(const ModelOutline& outline, const PlanRequest& request) {
  Plan plan;
  plan.kv_bytes_per_token = KvBytesPerToken(outline.layer_states, request.kv_bytes_per_value);
  if (!KvCacheBytes(request, plan.kv_bytes_per_token, &plan.kv_bytes)) {
    return Status(ErrorCode::kDoesNotFit,
                  fmt::format("a KV cache of {} sequences of {} tokens is larger than any memory",
                              request.sequences, request.context_tokens));
  }
  // A shape that sluice does not run: as if its buffers were those of a Llama.
  const int64_t floats_of_hidden = request.bf16_prompts ? 15 : 13;
  plan.activation_bytes = outline.description
                              ? ActivationBytes(*outline.description, request.max_batch_tokens,
                                                outline.vocab_size, request.bf16_prompts)
                              : static_cast<uint64_t>(request.max_batch_tokens *
                                                          outline.hidden_size * floats_of_hidden +
                                                      kLogitRows * outline.vocab_size) *
                                    4;
  plan.overhead_bytes = OverheadBytes(outline.metadata_bytes);
  const uint64_t fixed = plan.kv_bytes + plan.activation_bytes + plan.overhead_bytes;
  const std::vector<PlacementGroup> groups = Groups(outline);
  uint64_t cycle_bytes = 0;
  for (const PlacementGroup& group : groups) {
    cycle_bytes +=
        group.vector_bytes + (group.kind == GroupKind::kEmbedding ? 0 : group.matrix_bytes);
  }
  plan.smallest_ram_bytes = fixed + SmallestBudget(groups);
  plan.resident_ram_bytes = fixed + cycle_bytes;
  if (plan.smallest_ram_bytes > request.ram_bytes) {
    return Status(
        ErrorCode::kDoesNotFit,
        fmt::format(
            "{} bytes are needed at least, even with weights streaming from disk (KV cache of {} "
            "tokens {}, activations {}, tokenizer and the like {}, weights {}), and the budget is "
            "{}",
            plan.smallest_ram_bytes, request.context_tokens * request.sequences, plan.kv_bytes,
            plan.activation_bytes, plan.overhead_bytes, plan.smallest_ram_bytes - fixed,
            request.ram_bytes));
  }
  Result<Placement> placement = PlaceGroups(groups, {.budget_bytes = request.ram_bytes - fixed,
                                                     .ring_bytes = request.ring_bytes,
                                                     .rules = request.rules});
  if (!placement.ok()) return placement.status();
  plan.placement = std::move(*placement);
  return plan;
}

Result<Plan> MakePlan(const ModelOutline& outline, const PlanRequest& request,
                      const PlanRates& rates) {
  Result<Plan> plan = PlanMemory(outline, request);
  if (!plan.ok()) return plan;
  plan->decode = Predict(outline, *plan, request, rates, 1);
  plan->prefill = Predict(outline, *plan, request, rates, request.max_batch_tokens);
  PlanRequest more = request;
  more.ram_bytes += kGiB;
  const Result<Plan> with_more = PlanMemory(outline, more);
  plan->decode_with_a_gib_more = with_more.ok()
                                     ? Predict(outline, *with_more, more, rates, 1).tokens_per_s
                                     : plan->decode.tokens_per_s;
  return plan;
}

}  // namespace sluice
