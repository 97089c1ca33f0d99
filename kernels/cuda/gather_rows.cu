#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

struct GatherRowsOfTiles {
  GpuLayout layout;
  GatherRowsArgs args;
};

__device__ int64_t OffsetBytes(const GpuLayout& layout) {
  return layout.offset == WeightOffset::kNone        ? 0
         : layout.offset == WeightOffset::kZeroPoint ? 1
                                                     : 2;
}

__device__ uint16_t LoadHalf(const std::byte* at) { return *reinterpret_cast<const uint16_t*>(at); }

// s (q - z) or s q + m, rounded as the file's specification says.
__device__ float Dequantize(const GpuLayout& layout, int q, uint16_t scale,
                            const std::byte* offset) {
  const float s = HalfToFloat(scale);
  if (layout.offset == WeightOffset::kMinimum) {
    return s * static_cast<float>(q) + HalfToFloat(LoadHalf(offset));
  }
  const int zero = layout.offset == WeightOffset::kZeroPoint ? static_cast<int>(*offset)
                   : layout.kind == WeightKind::kInt4        ? 8
                                                             : 128;
  return s * static_cast<float>(q - zero);
}

// Channel k of one row of a tile in the GPU's layout (gpu_layout.h).
__device__ float Weight(const GpuLayout& layout, const std::byte* tile, int64_t row, int64_t k) {
  const bool quantized = layout.kind == WeightKind::kInt4 || layout.kind == WeightKind::kInt8;
  const int64_t chunk = k / kGpuChunkChannels;
  const int64_t in_chunk = k % kGpuChunkChannels;
  const std::byte* bytes = tile + layout.header_bytes + chunk * layout.chunk_bytes;
  const std::byte* unit = bytes + in_chunk / layout.unit_channels * kGpuUnitBytes;
  int64_t channel = in_chunk % layout.unit_channels;
  const bool high = layout.kind == WeightKind::kInt4 && channel >= 32;
  if (high) channel -= 32;
  const int64_t per_word = quantized ? 4 : layout.kind == WeightKind::kF32 ? 1 : 2;
  const std::byte* word = unit + (row % 8 * 4 + channel / (2 * per_word)) * 16 +
                          (channel / per_word % 2 * 2 + row / 8) * 4;
  if (layout.kind == WeightKind::kF32) return *reinterpret_cast<const float*>(word);
  if (!quantized) {
    const uint16_t bits = LoadHalf(word + channel % 2 * 2);
    return layout.kind == WeightKind::kF16 ? HalfToFloat(bits)
                                           : FloatFromBits(static_cast<uint32_t>(bits) << 16);
  }
  int q = static_cast<int>(word[channel % 4]);
  if (layout.kind == WeightKind::kInt4) q = high ? q >> 4 : q & 15;
  const int64_t rest = layout.padded_cols - chunk * kGpuChunkChannels;
  const int64_t channels = rest < kGpuChunkChannels ? rest : kGpuChunkChannels;
  const int64_t groups =
      layout.whole_rows ? 1 : (channels + layout.group_size - 1) / layout.group_size;
  const int64_t group = layout.whole_rows ? 0 : in_chunk / layout.group_size;
  const std::byte* scales =
      layout.whole_rows ? tile : bytes + channels / layout.unit_channels * kGpuUnitBytes;
  const std::byte* offsets = scales + groups * kTileRows * 2;
  const int64_t at = group * kTileRows + row;
  return Dequantize(layout, q, LoadHalf(scales + at * 2), offsets + at * OffsetBytes(layout));
}

__global__ void __launch_bounds__(kThreads) GatherRowsKernel(GatherRowsOfTiles gather) {
  const int64_t i = BlockX();
  const std::byte* tile = gather.args.row_tiles[i];
  const int64_t row = gather.args.rows_in_tile[i];
  float* out = gather.args.out + i * gather.args.out_stride;
  for (int64_t k = ThreadIndex(); k < gather.layout.cols; k += kThreads) {
    out[k] = Weight(gather.layout, tile, row, k);
  }
}

}  // namespace

void GatherRows(const GatherRowsArgs& args, CUstream_st* stream) {
  const Result<GpuLayout> layout = MakeGpuLayout(*args.layout);
  if (!layout.ok()) return;  // the caller asked before: MakeGpuLayout is the answer
  Launch<GatherRowsKernel>({args.count}, kThreads, 0, stream, {*layout, args});
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
