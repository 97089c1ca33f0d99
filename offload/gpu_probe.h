// GPUs and their driver, found without linking to either: NVIDIA's management library (NVML) is
// loaded if it is there.
#ifndef SLUICE_OFFLOAD_GPU_PROBE_H_
#define SLUICE_OFFLOAD_GPU_PROBE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "offload/device.h"

namespace sluice {

struct GpuInfo {
  unsigned index = 0;  // the management library's, which nvidia-smi shows too
  std::string name;
  std::string pci_address;  // "00000000:01:00.0"
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;
  std::string compute_capability;  // "8.9"
  int pcie_generation = 0;         // of the link as it is now; 0: not known
  int pcie_width = 0;
};

struct GpuProbe {
  std::vector<GpuInfo> gpus;   // all of the machine
  std::optional<size_t> used;  // of these, the one that was asked for
  std::string driver;          // its version, or why there is none
  std::string cuda;            // the newest CUDA that it runs, "13.0"; "" where that is not known
};

inline constexpr char kNvmlLibrary[] = "libnvidia-ml.so.1";

// Asks for all GPUs, and which of them CUDA means with `used` (null: no matter): the library counts
// GPUs by their addresses and CUDA by their speed, but both know an address. Of a GPU that is
// divided (MIG), what `used` is of is described in its place. `library` is for tests.
GpuProbe ProbeGpus(const CudaGpu* used = nullptr, const char* library = kNvmlLibrary);

// Memory that the driver counts as free on the GPU of that PCI address; none where that cannot be
// known. Needs no context.
std::optional<uint64_t> FreeGpuBytes(const char* pci_bus_id, const char* library = kNvmlLibrary);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_GPU_PROBE_H_
