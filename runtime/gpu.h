// The GPU that a model runs on, and what it needs there.
#ifndef SLUICE_RUNTIME_GPU_H_
#define SLUICE_RUNTIME_GPU_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/sluice_file.h"
#include "formats/status.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/ops.h"
#include "loaders/architecture.h"
#include "offload/device.h"

namespace sluice {

struct Gpu {
  std::shared_ptr<Device> device;
  const OpTable* ops = nullptr;  // for pointers of its memory
  // Where the library for prompts in f16 is sought, and what was found if it was asked for.
  std::vector<std::string> f16_libraries = CublasLt::Libraries();
  std::optional<CublasLt> f16_library = std::nullopt;
};

using GpuOpener = std::function<Result<Gpu>()>;

// The GPU of kUsedGpu (offload/device.h). Errors: as OpenCudaDevice.
Result<Gpu> OpenFirstGpu();

// The library that multiplies prompts in f16 on this machine: "cuBLASLt 13.1.0
// (libcublasLt.so.13)". Error: kUnsupported with the reason why there is none.
Result<std::string> FindF16Library();

// What an engine runs at most.
struct GpuRequest {
  KvType kv_type = KvType::kF16;
  int64_t context_tokens = 0;
  int64_t num_blocks = 0;
  int64_t max_batch_tokens = 0;
  bool f16_prompts = false;
};

// What the library for prompts in f16 takes of a GPU for its own code is known when it has worked;
// until then this stands for it.
inline constexpr uint64_t kF16LibraryBytes = uint64_t{64} << 20;

// Device memory by use, and the pinned memory of the host beside it.
struct GpuMemory {
  uint64_t weight_bytes = 0;
  uint64_t kv_cache_bytes = 0;
  uint64_t activation_bytes = 0;
  uint64_t scratch_bytes = 0;
  uint64_t library_bytes = 0;  // with prompts in f16
  uint64_t staging_bytes = 0;  // of the host, while the model runs

  // What --vram must allow: each of the five in whole units, and what the device takes itself.
  uint64_t TotalBytes(uint64_t unit_bytes, uint64_t own_bytes) const;
};

// Of all but the weights. Errors: kUnsupported for a cache that the GPU's operations do not know.
Result<GpuMemory> GpuMemoryBesideWeights(const ModelDescription& description, int64_t vocab_size,
                                         const GpuRequest& request);
// Errors: the same, and for weights of types that the GPU's operations do not know, by name.
Result<GpuMemory> GpuMemoryOf(const SluiceFile& file, const ModelDescription& description,
                              const GpuRequest& request);

// Of device memory that is free: what is used without a given budget.
uint64_t DefaultVramBudget(uint64_t free_bytes);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_GPU_H_
