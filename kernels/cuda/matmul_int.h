// What the two kernels for integer weights share. Both multiply the stored integers with
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

// Tokens that the kernel for few takes; in groups of 16 there is shared memory for half as many.
inline int64_t MostTokensOfFew(const GpuLayout& layout) { return layout.group_size < 32 ? 8 : 16; }

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

// MostTokensOfFew tokens or fewer: a block for each tile, its warps take chunks in turn.
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
  constexpr int kUnitBytes = static_cast<int>(kGpuUnitBytes) + (kBits < 8 ? (kBits - 4) * 128 : 0);
  const int half = kBits < 8 ? step % 2 : 0;
  const std::byte* unit = chunk + (kBits < 8 ? step / 2 : step) * kUnitBytes;
  const auto words = reinterpret_cast<const Words4*>(unit)[Lane()];
  const uint32_t mask = kBits < 8 ? 0x0f0f0f0fu : 0xffffffffu;
#pragma unroll
  for (int i = 0; i < 4; ++i) a[i] = (words.word[i] >> (4 * half)) & mask;
  if constexpr (kBits == 5) {
    const uint32_t high = reinterpret_cast<const uint32_t*>(unit + kGpuUnitBytes)[Lane()];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] |= ((high >> (4 * half + i)) & 0x01010101u) << 4;
  }
  if constexpr (kBits == 6) {
    const uint32_t high =
        reinterpret_cast<const uint32_t*>(unit + kGpuUnitBytes)[2 * Lane() + half];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] |= ((high >> (2 * i)) & 0x03030303u) << 4;
  }
}

// Of a whole chunk, the weights; behind them come at most 512 bytes of scales and offsets.
template <int kBits>
inline constexpr int kChunkValueBytes = kBits < 8 ? kChunkSteps / 2 *
                                                        (static_cast<int>(kGpuUnitBytes) +
                                                         (kBits - 4) * 128)
                                                  : kChunkSteps* static_cast<int>(kGpuUnitBytes);
inline constexpr int kMostParameterBytes = 512;

// Groups of a chunk and products of one group. Groups of 16 are half of a product each, whose other
// half of the activations is taken as zeros.
template <int kGroupChannels>
struct Groups {
  static constexpr int kCount = static_cast<int>(kGpuChunkChannels) / kGroupChannels;
  static constexpr int kSteps = kGroupChannels < kStepChannels ? 1 : kGroupChannels / kStepChannels;
  static __device__ __forceinline__ int StepOf(int group, int i) {
    return kGroupChannels < kStepChannels ? group * kGroupChannels / kStepChannels
                                          : group * kSteps + i;
  }
  // Whether the lane's 8 channels of a step are of the group.
  static __device__ __forceinline__ bool IsMine(int group) {
    return kGroupChannels >= kStepChannels || Lane() % 4 / 2 == group % 2;
  }
};

// What stands for zero in types without an offset.
__device__ __forceinline__ int32_t Middle(const GpuLayout& layout) {
  return 1 << (layout.bits - 1);
}

// The float32 that a K type's scale is: exact.
__device__ __forceinline__ float SuperScale(const std::byte* d, int row, int32_t integer) {
  return HalfToFloat(reinterpret_cast<const uint16_t*>(d)[row]) * static_cast<float>(integer);
}

// The scale of one row and group, and its zero point or minimum; read and written as one.
struct alignas(16) GroupScale {
  float scale;
  float minimum;
  int32_t zero;
};

// `parameters` are those of a chunk with `groups` groups, or of the tile's header with one.
__device__ __forceinline__ GroupScale LoadScale(const GpuLayout& layout,
                                                const std::byte* parameters, int groups, int group,
                                                int row) {
  const int at = group * static_cast<int>(kTileRows) + row;
  if (layout.super_scales) {
    constexpr int kRowHalfs = static_cast<int>(kTileRows) * 2;  // bytes of 16 f16
    if (layout.offset != WeightOffset::kMinimum) {
      const auto integer = static_cast<int8_t>(parameters[kRowHalfs + at]);
      return {SuperScale(parameters, row, integer), 0.0f, Middle(layout)};
    }
    const std::byte* integers = parameters + 2 * kRowHalfs;
    const std::byte* minima = integers + groups * static_cast<int>(kTileRows);
    return {SuperScale(parameters, row, static_cast<int32_t>(integers[at])),
            -SuperScale(parameters + kRowHalfs, row, static_cast<int32_t>(minima[at])), 0};
  }
  const std::byte* offsets = parameters + groups * static_cast<int>(kTileRows) * 2;
  GroupScale result = {HalfToFloat(reinterpret_cast<const uint16_t*>(parameters)[at]), 0.0f, 0};
  if (layout.offset == WeightOffset::kMinimum) {
    result.minimum = HalfToFloat(reinterpret_cast<const uint16_t*>(offsets)[at]);
  } else if (layout.offset == WeightOffset::kZeroPoint) {
    result.zero = static_cast<int32_t>(offsets[at]);
  } else {
    result.zero = Middle(layout);
  }
  return result;
}

// The same in a loop over a chunk: `of_chunk` are its parameters, `header` the tile's. Each load
// knows which memory it is of; a pointer to either would be a generic one.
template <int kGroupChannels>
__device__ __forceinline__ GroupScale ScaleOfChunk(const GpuLayout& layout, const std::byte* header,
                                                   const std::byte* of_chunk, int groups, int group,
                                                   int row) {
  if constexpr (kGroupChannels == static_cast<int>(kGpuChunkChannels)) {
    if (layout.whole_rows) return LoadScale(layout, header, 1, 0, row);
  }
  return LoadScale(layout, of_chunk, groups, group, row);
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
  int64_t channels;
  int64_t value_bytes;
  int groups;
  int64_t size_bytes;
};
__device__ __forceinline__ ChunkShape ShapeOfChunk(const GpuLayout& layout, int64_t chunk) {
  const int64_t rest = layout.padded_cols - chunk * kGpuChunkChannels;
  const int64_t channels = rest < kGpuChunkChannels ? rest : kGpuChunkChannels;
  ChunkShape shape;
  shape.channels = channels;
  shape.value_bytes = channels / layout.unit_channels * layout.unit_bytes;
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
