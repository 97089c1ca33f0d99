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

bool HasUsedGpu(const MachineFacts& facts) {
  return !facts.gpus.empty() && facts.why_no_gpu.empty();
}

std::string GpusText(const MachineFacts& facts, const std::string& note) {
  const std::vector<GpuFacts>& gpus = facts.gpus;
  if (gpus.size() == 1) return fmt::format("{:<14}{}{}\n", "GPU", GpuText(gpus[0]), note);
  std::string text;
  for (size_t i = 0; i < gpus.size(); ++i) {
    const bool used = HasUsedGpu(facts) && i == facts.used_gpu;
    text += fmt::format("{:<14}{}{}{}\n", fmt::format("GPU {}", gpus[i].index), GpuText(gpus[i]),
                        note, used ? "; sluice uses this one" : "");
  }
  if (gpus.size() > 1) {
    text += fmt::format("{:<14}{}\n", "",
                        "another one: CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=NUMBER in "
                        "the environment");
  }
  return text;
}

nlohmann::ordered_json GpusJson(const MachineFacts& facts) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const GpuFacts& gpu = facts.gpus[i];
    json.push_back({{"index", gpu.index},
                    {"name", gpu.name},
                    {"pci_address", gpu.pci_address},
                    {"memory_bytes", gpu.memory_bytes},
                    {"free_bytes", gpu.free_bytes},
                    {"compute_capability", gpu.compute_capability},
                    {"pcie_generation", gpu.pcie_generation},
                    {"pcie_width", gpu.pcie_width},
                    {"used", HasUsedGpu(facts) && i == facts.used_gpu}});
  }
  return json;
}

std::string WhyNoGpu(const MachineFacts& facts) {
  if (facts.cuda_build == "none") return "this build has no CUDA";
  if (facts.gpus.empty()) {
    // Without a GPU what there is in its place is the reason, if the driver is not there at all.
    return facts.gpu_cuda.empty() ? facts.gpu_driver : "the driver has no GPU";
  }
  if (!HasUsedGpu(facts) && IsSupportedDriver(facts)) return facts.why_no_gpu;
  if (HasUsedGpu(facts) && !IsSupportedGpu(facts.gpus[facts.used_gpu])) {
    const GpuFacts& gpu = facts.gpus[facts.used_gpu];
    return fmt::format("{} has compute capability {}, 8.0 is needed", gpu.name,
                       gpu.compute_capability);
  }
  if (!IsSupportedDriver(facts)) {
    return fmt::format("driver {} is for CUDA {}, this build is with {}", facts.gpu_driver,
                       facts.gpu_cuda, facts.cuda_build);
  }
  return "";
}

}  // namespace sluice
