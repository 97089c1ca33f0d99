// Whether a GPU would hold a model.
#ifndef SLUICE_TOOLS_GPU_PLAN_H_
#define SLUICE_TOOLS_GPU_PLAN_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "loaders/model_outline.h"
#include "runtime/gpu.h"
#include "runtime/machine.h"
#include "runtime/planner.h"

namespace sluice {

struct GpuPlan {
  MachineFacts facts;
  GpuMemory needed;
  uint64_t smallest_bytes = 0;  // the smallest --vram, with CUDA's own share as it usually is
  uint64_t budget_bytes = 0;
  bool fits = false;
  std::string why_not;  // the GPU would not compute, whatever its memory
};

// `vram_bytes` as --vram; without it, what is free on the GPU that is used less a margin. A
// budget that is given is planned with whether there is a GPU or not.
GpuPlan PlanGpu(const ModelOutline& outline, const PlanRequest& request,
                std::optional<uint64_t> vram_bytes, const MachineFacts& facts);

std::string GpuPlanText(const GpuPlan& plan);
nlohmann::ordered_json GpuPlanJson(const GpuPlan& plan);

}  // namespace sluice

#endif  // SLUICE_TOOLS_GPU_PLAN_H_
