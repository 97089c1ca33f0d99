#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

struct GatherRowsOfTiles {
  GpuLayout layout;
  GatherRowsArgs args;
};

__device__ uint16_t LoadHalf(const std::byte* at) { return *reinterpret_cast<const uint16_t*>(at); }

// The integer of one row and channel of a unit, channel below 64; `lane` and `word` as they are for
// channel % 32.
__device__ int Integer(const GpuLayout& layout, const std::byte* unit, int64_t channel,
                       int64_t lane, int64_t word) {
  const int64_t half = channel / 32;
  const int64_t byte = channel % 4;
  const int low = static_cast<int>(unit[lane * 16 + word * 4 + byte]) >> (4 * half) & 15;
  const std::byte* high = unit + kGpuUnitBytes + byte;
  if (layout.bits == 5) {
    return low | (static_cast<int>(high[lane * 4]) >> (4 * half + word) & 1) << 4;
  }
  if (layout.bits == 6) {
    return low | (static_cast<int>(high[lane * 8 + half * 4]) >> (2 * word) & 3) << 4;
  }
  return low;
}

// Channel k of one row of a tile in the GPU's layout (gpu_layout.h); s (q - z) or s q + m, rounded
// as the file's specification says.
__device__ float Weight(const GpuLayout& layout, const std::byte* tile, int64_t row, int64_t k) {
  const int64_t chunk = k / kGpuChunkChannels;
  const int64_t in_chunk = k % kGpuChunkChannels;
  const std::byte* bytes = tile + layout.header_bytes + chunk * layout.chunk_bytes;
  const std::byte* unit = bytes + in_chunk / layout.unit_channels * layout.unit_bytes;
  const int64_t channel = in_chunk % layout.unit_channels;
  const int64_t per_word = layout.bits != 0 ? 4 : layout.kind == WeightKind::kF32 ? 1 : 2;
  const int64_t in_half = layout.bits != 0 && layout.bits < 8 ? channel % 32 : channel;
  const int64_t lane = row % 8 * 4 + in_half / (2 * per_word);
  const int64_t word = in_half / per_word % 2 * 2 + row / 8;
  const std::byte* at = unit + lane * 16 + word * 4;
  if (layout.kind == WeightKind::kF32) return *reinterpret_cast<const float*>(at);
  if (layout.bits == 0) {
    const uint16_t bits = LoadHalf(at + channel % 2 * 2);
    return layout.kind == WeightKind::kF16 ? HalfToFloat(bits)
                                           : FloatFromBits(static_cast<uint32_t>(bits) << 16);
  }
  const int q = layout.bits == 8 ? static_cast<int>(at[channel % 4])
                                 : Integer(layout, unit, channel, lane, word);
  const ChunkShape shape = ShapeOfChunk(layout, chunk);
  const GroupScale scale =
      LoadScale(layout, layout.bits, layout.whole_rows ? tile : bytes + shape.value_bytes,
                layout.whole_rows ? 1 : shape.groups,
                layout.whole_rows ? 0 : static_cast<int>(in_chunk / layout.group_size),
                static_cast<int>(row));
  const float product = scale.scale * static_cast<float>(q - scale.zero);
  return layout.offset == WeightOffset::kMinimum ? product + scale.minimum : product;
}

__global__ void __launch_bounds__(kThreads) GatherRowsKernel(GatherRowsOfTiles gather) {
  TakeTurn();
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
