#include "runtime/cuda_layout.h"

#include "formats/checked.h"
#include "kernels/cuda/gpu_layout.h"

namespace sluice {
namespace {

bool IsVector(const TileLayout& layout) {
  return layout.tile_rows == 1 && layout.rows == 1 && !layout.type.quantized();
}

}  // namespace

Result<uint64_t> CudaLayout::SizeBytes(const TileLayout& layout, uint64_t num_tiles) const {
  if (IsVector(layout)) return layout.cols * sizeof(float);
  const Result<GpuLayout> gpu = MakeGpuLayout(layout);
  if (!gpu.ok()) return gpu.status();
  uint64_t size_bytes = 0;
  if (!CheckedMul(num_tiles, static_cast<uint64_t>(gpu->tile_bytes), &size_bytes)) {
    return Status(ErrorCode::kCorrupt, "the size of the weights overflows");
  }
  return size_bytes;
}

void CudaLayout::Arrange(const TileLayout& layout, const std::byte* tiles, uint64_t num_tiles,
                         std::span<std::byte> out) const {
  if (IsVector(layout)) {
    DequantizeRow(layout, tiles, 0, reinterpret_cast<float*>(out.data()));
    return;
  }
  const Result<GpuLayout> gpu = MakeGpuLayout(layout);
  if (!gpu.ok()) return;  // SizeBytes said so
  RepackForGpu(layout, tiles, static_cast<int64_t>(num_tiles), *gpu, out.data());
}

}  // namespace sluice
