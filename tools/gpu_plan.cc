#include "tools/gpu_plan.h"

#include <fmt/format.h>

#include "runtime/engine_options.h"
#include "tools/gpu_facts.h"
#include "tools/output.h"

namespace sluice {
namespace {

// What CUDA takes for itself is known when a GPU is opened; until then this stands for it.
constexpr uint64_t kCudaBytes = uint64_t{512} << 20;
constexpr uint64_t kUnitBytes = uint64_t{2} << 20;

std::string WhyNot(const ModelOutline& outline, const PlanRequest& request,
                   std::optional<uint64_t> vram_bytes, const MachineFacts& facts) {
  if (!outline.description) return "sluice does not run the model";
  if (request.kv_bytes_per_value != 2) return "the KV cache of a GPU is in f16";
  if (vram_bytes == 0u) return "--vram 0";
  if (request.bf16_prompts) return "prefill in bf16 is for the processor";
  if (facts.cuda_build == "none") return "this build has no CUDA";
  if (vram_bytes) return "";  // a plan for the GPU that is meant
  return WhyNoGpu(facts);
}

}  // namespace

GpuPlan PlanGpu(const ModelOutline& outline, const PlanRequest& request,
                std::optional<uint64_t> vram_bytes, const MachineFacts& facts) {
  GpuPlan plan;
  plan.facts = facts;
  plan.why_not = WhyNot(outline, request, vram_bytes, facts);
  if (!plan.why_not.empty()) return plan;
  const int64_t blocks = (request.context_tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  const int64_t batch_tokens =
      request.f16_prompts ? DefaultBatchTokens(true, request.context_tokens, request.sequences)
                          : request.max_batch_tokens;
  Result<GpuMemory> needed =
      GpuMemoryBesideWeights(*outline.description, outline.vocab_size,
                             {KvType::kF16, request.context_tokens, blocks * request.sequences,
                              batch_tokens, request.f16_prompts});
  if (!needed.ok()) {
    plan.why_not = needed.status().message();
    return plan;
  }
  for (const OutlineGroup& group : outline.groups) {
    if (group.kind == GroupKind::kEmbedding) continue;
    needed->weight_bytes += group.matrix_bytes + group.vector_bytes;
  }
  plan.needed = *needed;
  plan.smallest_bytes = needed->TotalBytes(kUnitBytes, kCudaBytes);
  plan.budget_bytes =
      vram_bytes ? *vram_bytes : DefaultVramBudget(facts.gpus[facts.used_gpu].free_bytes);
  plan.fits = plan.smallest_bytes <= plan.budget_bytes;
  return plan;
}

std::string GpuPlanText(const GpuPlan& plan) {
  const std::string text = GpusText(plan.facts, "");
  if (!plan.why_not.empty()) {
    return text + fmt::format("{:<14}none ({})\n", "VRAM", OnOneLine(plan.why_not));
  }
  const GpuMemory& needed = plan.needed;
  return text + fmt::format(
                    "{:<14}{} of {}: weights about {}, KV cache {}, activations and "
                    "scratch {}, {}CUDA itself taken for {}; {}\n",
                    "VRAM", FormatBytes(plan.smallest_bytes), FormatBytes(plan.budget_bytes),
                    FormatBytes(needed.weight_bytes), FormatBytes(needed.kv_cache_bytes),
                    FormatBytes(needed.activation_bytes + needed.scratch_bytes),
                    needed.library_bytes == 0
                        ? ""
                        : fmt::format("cuBLASLt taken for {}, ", FormatBytes(needed.library_bytes)),
                    FormatBytes(kCudaBytes),
                    plan.fits ? "the GPU computes, at a speed that is not predicted; what "
                                "follows is the processor's"
                    : needed.library_bytes > 0 ? "it does not fit, and prompts in f16 are for a GPU"
                                               : "it does not fit, the processor computes");
}

nlohmann::ordered_json GpuPlanJson(const GpuPlan& plan) {
  nlohmann::ordered_json json = {{"gpus", GpusJson(plan.facts)}, {"driver", plan.facts.gpu_driver}};
  if (!plan.why_not.empty()) {
    json["why_not"] = plan.why_not;
    return json;
  }
  json["vram_smallest_bytes"] = plan.smallest_bytes;
  json["vram_budget_bytes"] = plan.budget_bytes;
  json["weight_bytes"] = plan.needed.weight_bytes;
  json["kv_cache_bytes"] = plan.needed.kv_cache_bytes;
  json["activation_bytes"] = plan.needed.activation_bytes;
  json["scratch_bytes"] = plan.needed.scratch_bytes;
  if (plan.needed.library_bytes > 0) json["f16_library_bytes"] = plan.needed.library_bytes;
  json["fits"] = plan.fits;
  return json;
}

}  // namespace sluice
