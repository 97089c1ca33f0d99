// What the two kernels for int4 and int8 weights share. Both multiply the stored integers with
// activations in int8 on the tensor cores, exactly, and add up groups as the numeric contract says
// (kernels/README.md), so they agree with each other and with the CPU's tables to the bit.
#ifndef SLUICE_KERNELS_CUDA_MATMUL_INT_H_
#define SLUICE_KERNELS_CUDA_MATMUL_INT_H_

#include <cmath>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr int kStepChannels = 32;  // of one product of the tensor cores
inline constexpr int kChunkSteps = static_cast<int>(kGpuChunkChannels) / kStepChannels;
inline constexpr int64_t kMostTokensOfFew = 16;

struct IntMatmul {
  GpuLayout layout;
  const std::byte* tiles;
  int64_t num_tiles;
  int64_t rows;
  QuantizedActivations x;
  int64_t tokens;
  const float* bias;
  bool add_to_y;
  float* y;
  int64_t y_stride;
  int64_t chunk_begin, chunk_end;
};

// 1 to 16 tokens: a block for each tile, its warps take chunks in turn.
void MatmulFewTokens(const IntMatmul& args, CUstream_st* stream);
// Any number: blocks of rows x tokens, each walks over all chunks.
void MatmulManyTokens(const IntMatmul& args, CUstream_st* stream);

struct alignas(16) Words4 {
  uint32_t word[4];
};
struct alignas(8) Words2 {
  uint32_t word[2];
};

// The left operand of step `step` of a chunk: 16 rows x 32 channels.
template <int kBits>
__device__ __forceinline__ void LoadWeights(const std::byte* chunk, int step, uint32_t (&a)[4]) {
  const int unit = kBits == 4 ? step / 2 : step;
  const auto words = reinterpret_cast<const Words4*>(chunk + unit * kGpuUnitBytes)[Lane()];
  const int shift = kBits == 4 ? step % 2 * 4 : 0;
  const uint32_t mask = kBits == 4 ? 0x0f0f0f0fu : 0xffffffffu;
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = (words.word[i] >> shift) & mask;
}

// The scale of one row and group, and its zero point or minimum.
struct GroupScale {
  float scale;
  float minimum;
  int32_t zero;
};

// `parameters` are those of a chunk with `groups` groups, or of the tile's header with one.
__device__ __forceinline__ GroupScale LoadScale(const GpuLayout& layout,
                                                const std::byte* parameters, int groups, int group,
                                                int row) {
  const int at = group * static_cast<int>(kTileRows) + row;
  const std::byte* offsets = parameters + groups * static_cast<int>(kTileRows) * 2;
  GroupScale result = {HalfToFloat(reinterpret_cast<const uint16_t*>(parameters)[at]), 0.0f, 0};
  if (layout.offset == WeightOffset::kMinimum) {
    result.minimum = HalfToFloat(reinterpret_cast<const uint16_t*>(offsets)[at]);
  } else if (layout.offset == WeightOffset::kZeroPoint) {
    result.zero = static_cast<int32_t>(offsets[at]);
  } else {
    result.zero = layout.kind == WeightKind::kInt4 ? 8 : 128;
  }
  return result;
}

// Adds one group: `products` is the sum of q x, `x_scale` and `x_sum` are the activations'.
__device__ __forceinline__ float AddGroup(const GroupScale& weight, bool has_minimum,
                                          int32_t products, float x_scale, int32_t x_sum,
                                          float sum) {
  const float scale = weight.scale * x_scale;
  sum = fmaf(scale, static_cast<float>(products - weight.zero * x_sum), sum);
  if (has_minimum) sum = fmaf(weight.minimum, x_scale * static_cast<float>(x_sum), sum);
  return sum;
}

__device__ __forceinline__ void WriteResult(const IntMatmul& args, int64_t row, int64_t token,
                                            float sum) {
  if (row >= args.rows || token >= args.tokens) return;
  if (args.bias != nullptr) sum += args.bias[row];
  float& y = args.y[token * args.y_stride + row];
  y = args.add_to_y ? y + sum : sum;
}

// Units and groups of a chunk, the last of which may be short.
struct ChunkShape {
  int64_t value_bytes;
  int groups;
  int64_t size_bytes;
};
__device__ __forceinline__ ChunkShape ShapeOfChunk(const GpuLayout& layout, int64_t chunk) {
  const int64_t rest = layout.padded_cols - chunk * kGpuChunkChannels;
  const int64_t channels = rest < kGpuChunkChannels ? rest : kGpuChunkChannels;
  ChunkShape shape;
  shape.value_bytes = channels / layout.unit_channels * kGpuUnitBytes;
  shape.groups = static_cast<int>((channels + layout.group_size - 1) / layout.group_size);
  const int64_t end =
      chunk + 1 < layout.num_chunks
          ? layout.chunk_bytes
          : layout.tile_bytes - layout.header_bytes - (layout.num_chunks - 1) * layout.chunk_bytes;
  shape.size_bytes = end;
  return shape;
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_MATMUL_INT_H_
