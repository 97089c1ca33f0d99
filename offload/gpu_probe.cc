#include "offload/gpu_probe.h"

#include <dlfcn.h>

#include <memory>

namespace sluice {
namespace {

// Signatures of NVML's documented interface (nvml.h): a handle per device, 0 for success.
using Handle = void*;
struct Memory {
  unsigned long long total, free, used;
};

// nvmlPciInfo_t of version 3: an address of the older form, five numbers, the address.
struct PciInfo {
  char short_address[16];
  unsigned numbers[5];
  char address[32];
};

constexpr unsigned kNameBytes = 96;

class Nvml {
 public:
  explicit Nvml(void* library) : library_(library) {}

  template <typename... Args>
  bool Call(const char* name, Args... args) const {
    using Function = int (*)(Args...);
    const auto function = reinterpret_cast<Function>(dlsym(library_, name));
    return function != nullptr && function(args...) == 0;
  }

 private:
  void* library_;
};

// Name and memory, as far as they are known.
void DescribeMemory(const Nvml& nvml, Handle device, GpuInfo* gpu) {
  char name[kNameBytes] = {};
  if (nvml.Call("nvmlDeviceGetName", device, static_cast<char*>(name), kNameBytes)) {
    name[kNameBytes - 1] = 0;
    gpu->name = name;
  }
  Memory memory = {};
  if (nvml.Call("nvmlDeviceGetMemoryInfo", device, &memory)) {
    gpu->memory_bytes = memory.total;
    gpu->free_bytes = memory.free;
  }
}

GpuInfo Describe(const Nvml& nvml, Handle device, unsigned index) {
  GpuInfo gpu;
  gpu.index = index;
  DescribeMemory(nvml, device, &gpu);
  PciInfo pci = {};
  if (nvml.Call("nvmlDeviceGetPciInfo_v3", device, &pci)) {
    pci.address[sizeof(pci.address) - 1] = 0;
    gpu.pci_address = pci.address;
  }
  int major = 0;
  int minor = 0;
  if (nvml.Call("nvmlDeviceGetCudaComputeCapability", device, &major, &minor)) {
    gpu.compute_capability = std::to_string(major) + "." + std::to_string(minor);
  }
  unsigned generation = 0;
  unsigned width = 0;
  if (nvml.Call("nvmlDeviceGetCurrPcieLinkGeneration", device, &generation) &&
      nvml.Call("nvmlDeviceGetCurrPcieLinkWidth", device, &width)) {
    gpu.pcie_generation = static_cast<int>(generation);
    gpu.pcie_width = static_cast<int>(width);
  }
  return gpu;
}

void FindUsed(const Nvml& nvml, const CudaGpu& used, GpuProbe* probe) {
  Handle device = nullptr;
  unsigned index = 0;
  if (!nvml.Call("nvmlDeviceGetHandleByPciBusId_v2", used.pci_address.c_str(), &device) ||
      !nvml.Call("nvmlDeviceGetIndex", device, &index)) {
    return;
  }
  for (size_t i = 0; i < probe->gpus.size(); ++i) {
    if (probe->gpus[i].index == index) probe->used = i;
  }
  Handle instance = nullptr;
  const std::string uuid = "MIG-" + used.uuid;
  if (probe->used && nvml.Call("nvmlDeviceGetHandleByUUID", uuid.c_str(), &instance))
    DescribeMemory(nvml, instance, &probe->gpus[*probe->used]);
}

}  // namespace

std::optional<uint64_t> FreeGpuBytes(const char* pci_bus_id, const char* library) {
  const std::unique_ptr<void, int (*)(void*)> handle(dlopen(library, RTLD_NOW | RTLD_LOCAL),
                                                     dlclose);
  if (handle == nullptr) return std::nullopt;
  const Nvml nvml(handle.get());
  if (!nvml.Call("nvmlInit_v2")) return std::nullopt;
  Handle device = nullptr;
  Memory memory = {};
  const bool known = nvml.Call("nvmlDeviceGetHandleByPciBusId_v2", pci_bus_id, &device) &&
                     nvml.Call("nvmlDeviceGetMemoryInfo", device, &memory);
  nvml.Call("nvmlShutdown");
  if (!known) return std::nullopt;
  return memory.free;
}

GpuProbe ProbeGpus(const CudaGpu* used, const char* library) {
  GpuProbe probe;
  const std::unique_ptr<void, int (*)(void*)> handle(dlopen(library, RTLD_NOW | RTLD_LOCAL),
                                                     dlclose);
  if (handle == nullptr) {
    probe.driver = "no NVIDIA driver";
    return probe;
  }
  const Nvml nvml(handle.get());
  if (!nvml.Call("nvmlInit_v2")) {
    probe.driver = "an NVIDIA driver is installed, but does not work";
    return probe;
  }
  char version[kNameBytes] = {};
  if (nvml.Call("nvmlSystemGetDriverVersion", static_cast<char*>(version), kNameBytes)) {
    version[kNameBytes - 1] = 0;
    probe.driver = version;
  }
  int cuda = 0;
  if (nvml.Call("nvmlSystemGetCudaDriverVersion_v2", &cuda)) {
    probe.cuda = std::to_string(cuda / 1000) + "." + std::to_string(cuda % 1000 / 10);
  }
  unsigned count = 0;
  nvml.Call("nvmlDeviceGetCount_v2", &count);
  for (unsigned i = 0; i < count; ++i) {
    Handle device = nullptr;
    if (nvml.Call("nvmlDeviceGetHandleByIndex_v2", i, &device))
      probe.gpus.push_back(Describe(nvml, device, i));
  }
  if (used != nullptr) FindUsed(nvml, *used, &probe);
  nvml.Call("nvmlShutdown");
  return probe;
}

}  // namespace sluice
