// How weights lie in a GPU's memory, for the store that brings them there.
#ifndef SLUICE_RUNTIME_CUDA_LAYOUT_H_
#define SLUICE_RUNTIME_CUDA_LAYOUT_H_

#include "offload/device_store.h"

namespace sluice {

// Matrices in the layout of the CUDA operations (kernels/cuda/gpu_layout.h), vectors in float32.
class CudaLayout final : public DeviceLayout {
 public:
  Result<uint64_t> SizeBytes(const TileLayout& layout, uint64_t num_tiles) const override;
  void Arrange(const TileLayout& layout, const std::byte* tiles, uint64_t num_tiles,
               std::span<std::byte> out) const override;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_CUDA_LAYOUT_H_
