#include "tools/gpu_facts.h"

#include <fmt/format.h>

#include "tools/output.h"

namespace sluice {

std::string GpuText(const GpuFacts& gpu) {
  const std::string compute =
      gpu.compute_capability.empty() ? "unknown" : OnOneLine(gpu.compute_capability);
  const std::string link = gpu.pcie_generation == 0
                               ? "unknown"
                               : fmt::format("{} x{}", gpu.pcie_generation, gpu.pcie_width);
  return fmt::format("{}, {} ({} free), compute {}, PCIe {}", OnOneLine(gpu.name),
                     FormatBytes(gpu.memory_bytes), FormatBytes(gpu.free_bytes), compute, link);
}

nlohmann::ordered_json GpusJson(const std::vector<GpuFacts>& gpus) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const GpuFacts& gpu : gpus) {
    json.push_back({{"name", gpu.name},
                    {"memory_bytes", gpu.memory_bytes},
                    {"free_bytes", gpu.free_bytes},
                    {"compute_capability", gpu.compute_capability},
                    {"pcie_generation", gpu.pcie_generation},
                    {"pcie_width", gpu.pcie_width}});
  }
  return json;
}

std::string WhyNoGpu(const MachineFacts& facts) {
  if (facts.cuda_build == "none") return "this build has no CUDA";
  if (facts.gpus.empty()) {
    // Without a GPU what there is in its place is the reason, if the driver is not there at all.
    return facts.gpu_cuda.empty() ? facts.gpu_driver : "the driver has no GPU";
  }
  if (!IsSupportedGpu(facts.gpus[0])) {
    return fmt::format("{} has compute capability {}, 8.0 is needed", facts.gpus[0].name,
                       facts.gpus[0].compute_capability);
  }
  if (!IsSupportedDriver(facts)) {
    return fmt::format("driver {} is for CUDA {}, this build is with {}", facts.gpu_driver,
                       facts.gpu_cuda, facts.cuda_build);
  }
  return "";
}

}  // namespace sluice
