#include "runtime/gpu.h"

#include <algorithm>

#include "formats/checked.h"
#include "kernels/cuda/support.h"
#include "kernels/select.h"
#include "offload/device_store.h"
#include "runtime/activations.h"
#include "runtime/cuda_layout.h"
#include "runtime/device_scratch.h"
#include "runtime/kv_cache.h"

namespace sluice {
namespace {

// Left to others: the desktop, other programs, what the driver takes for a first launch.
constexpr uint64_t kMarginShare = 16;
constexpr uint64_t kMostBytes = uint64_t{1} << 60;

}  // namespace

Result<Gpu> OpenFirstGpu() {
  Result<std::unique_ptr<Device>> device = OpenCudaDevice(kUsedGpu, LoadCudaKernels);
  if (!device.ok()) return device.status();
  Gpu gpu;
  gpu.device = std::move(*device);
  gpu.ops = CudaTable();
  if (gpu.ops == nullptr) return Status(ErrorCode::kInternal, "a GPU without operations for it");
  return gpu;
}

Result<std::string> FindF16Library() {
  const Result<CublasLt> library = CublasLt::Load(CublasLt::Libraries());
  if (!library.ok()) return library.status();
  return library->description();
}

uint64_t GpuMemory::TotalBytes(uint64_t unit_bytes, uint64_t own_bytes) const {
  uint64_t total = own_bytes;
  for (uint64_t bytes :
       {weight_bytes, kv_cache_bytes, activation_bytes, scratch_bytes, library_bytes}) {
    total += RoundUp(std::min(bytes, kMostBytes), unit_bytes);
  }
  return total;
}

Result<GpuMemory> GpuMemoryBesideWeights(const ModelDescription& description, int64_t vocab_size,
                                         const GpuRequest& request) {
  for (const LayerStateDescription& layer : description.layer_states) {
    const KvLayer view = {nullptr, 0, request.kv_type, layer.num_kv_heads, layer.head_dim};
    if (Status s = CheckGpuCache(view); !s.ok()) return s;
  }
  const DeviceScratchSizes scratch =
      DeviceScratchSizesOf(description, vocab_size, request.max_batch_tokens,
                           request.context_tokens, request.num_blocks, request.f16_prompts);
  GpuMemory memory;
  if (!CheckedMul(KvCache::BlockBytes(description.layer_states, request.kv_type),
                  static_cast<uint64_t>(request.num_blocks), &memory.kv_cache_bytes)) {
    memory.kv_cache_bytes = kMostBytes;
  }
  memory.activation_bytes =
      Activations::SizeBytes(description, request.max_batch_tokens, /*on_device=*/true,
                             /*with_bf16=*/false, request.f16_prompts);
  memory.scratch_bytes = DeviceScratch::DeviceBytes(scratch);
  if (request.f16_prompts) memory.library_bytes = kF16LibraryBytes;
  memory.staging_bytes = DeviceScratch::StagingBytes(scratch) +
                         static_cast<uint64_t>(kLogitRows * vocab_size) * sizeof(float);
  return memory;
}

Result<GpuMemory> GpuMemoryOf(const SluiceFile& file, const ModelDescription& description,
                              const GpuRequest& request) {
  Result<GpuMemory> memory = GpuMemoryBesideWeights(description, file.config().vocab_size, request);
  if (!memory.ok()) return memory;
  const Result<uint64_t> weights = DeviceStoreBytes(file, CudaLayout());
  if (!weights.ok()) return weights.status();
  memory->weight_bytes = *weights;
  return memory;
}

uint64_t DefaultVramBudget(uint64_t free_bytes) { return free_bytes - free_bytes / kMarginShare; }

}  // namespace sluice
