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
inline constexpr int kChunkChannels = static_cast<int>(kGpuChunkChannels);
inline constexpr int kChunkSteps = kChunkChannels / kStepChannels;

// Tokens that the kernel for few takes; in groups of 16 there is shared memory for half as many.
inline int64_t MostTokensOfFew(int group_size) { return group_size < 32 ? 8 : 16; }

// What kernels need of a matrix and its result. A tile is less than 2^31 bytes.
struct IntMatrix {
  const std::byte* tiles;
  const float* bias;
  float* y;
  int64_t y_stride;
  int64_t rows;
  int32_t num_tiles;
  int32_t tile_bytes;
  int32_t header_bytes;
  int32_t chunk_bytes;
  int32_t last_chunk_bytes;
  int32_t padded_cols;
  int32_t num_chunks;
  int32_t chunk_begin, chunk_end;
  WeightOffset offset;
  bool whole_rows;
  bool super_scales;
  bool add_to_y;
};

// Matrices of as many bits and the same group size, times the same activations. Blocks of a launch
// are the first matrix's, then the second's, and so on.
struct IntMatmul {
  IntMatrix matrices[kMostMatmuls];
  int count;
  int bits;
  int group_size;
  QuantizedActivations x;
  int64_t tokens;
  int stages = 0;  // of the ring of copies, where the launch chooses
};

// Blocks of all matrices, where one takes `tiles` tiles.
inline int64_t BlocksOf(const IntMatmul& args, int64_t tiles) {
  int64_t blocks = 0;
  for (int i = 0; i < args.count; ++i) {
    blocks += (args.matrices[i].num_tiles + tiles - 1) / tiles;
  }
  return blocks;
}

inline int MostChunkBytes(const IntMatmul& args) {
  int most = 0;
  for (int i = 0; i < args.count; ++i) {
    if (args.matrices[i].chunk_bytes > most) most = args.matrices[i].chunk_bytes;
  }
  return most;
}

// The matrix of a block, and which one of that matrix's it is.
struct BlockPlace {
  int matrix;
  int block;
};
__device__ __forceinline__ BlockPlace PlaceOf(const IntMatmul& args, int tiles, int block) {
  BlockPlace place = {0, block};
  for (; place.matrix + 1 < args.count; ++place.matrix) {
    const int blocks = (args.matrices[place.matrix].num_tiles + tiles - 1) / tiles;
    if (place.block < blocks) break;
    place.block -= blocks;
  }
  return place;
}

// One token.
void MatmulOneToken(const IntMatmul& args, CUstream_st* stream);
// MostTokensOfFew tokens or fewer: a block for each tile, its warps take chunks in turn.
void MatmulFewTokens(const IntMatmul& args, CUstream_st* stream);
// Any number: blocks of rows x tokens, each walks over all chunks.
void MatmulManyTokens(const IntMatmul& args, CUstream_st* stream);

template <int kBits>
inline constexpr int kUnitBytes = static_cast<int>(kGpuUnitBytes) +
                                  (kBits < 8 ? (kBits - 4) * 128 : 0);

struct alignas(16) Words4 {
  uint32_t word[4];
};
struct alignas(8) Words2 {
  uint32_t word[2];
};

// The left operand of step `step` of a chunk: 16 rows x 32 channels.
template <int kBits>
__device__ __forceinline__ void LoadWeights(const std::byte* chunk, int step, uint32_t (&a)[4]) {
  const int half = kBits < 8 ? step % 2 : 0;
  const std::byte* unit = chunk + (kBits < 8 ? step / 2 : step) * kUnitBytes<kBits>;
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
inline constexpr int kChunkValueBytes =
    kBits < 8 ? kChunkSteps / 2 * kUnitBytes<kBits> : kChunkSteps* kUnitBytes<kBits>;
inline constexpr int kMostParameterBytes = 512;

// Groups of a chunk and products of one group. Groups of 16 are half of a product each, whose other
// half of the activations is taken as zeros.
template <int kGroupChannels>
struct Groups {
  static constexpr int kCount = kChunkChannels / kGroupChannels;
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

// `parameters` are those of a chunk with `groups` groups, or of the tile's header with one. Matrix
// is GpuLayout or IntMatrix.
template <typename Matrix>
__device__ __forceinline__ GroupScale LoadScale(const Matrix& matrix, int bits,
                                                const std::byte* parameters, int groups, int group,
                                                int row) {
  const int middle = 1 << (bits - 1);  // stands for zero in types without an offset
  const int at = group * static_cast<int>(kTileRows) + row;
  if (matrix.super_scales) {
    constexpr int kRowHalfs = static_cast<int>(kTileRows) * 2;  // bytes of 16 f16
    if (matrix.offset != WeightOffset::kMinimum) {
      const auto integer = static_cast<int8_t>(parameters[kRowHalfs + at]);
      return {SuperScale(parameters, row, integer), 0.0f, middle};
    }
    const std::byte* integers = parameters + 2 * kRowHalfs;
    const std::byte* minima = integers + groups * static_cast<int>(kTileRows);
    return {SuperScale(parameters, row, static_cast<int32_t>(integers[at])),
            -SuperScale(parameters + kRowHalfs, row, static_cast<int32_t>(minima[at])), 0};
  }
  const std::byte* offsets = parameters + groups * static_cast<int>(kTileRows) * 2;
  GroupScale result = {HalfToFloat(reinterpret_cast<const uint16_t*>(parameters)[at]), 0.0f, 0};
  if (matrix.offset == WeightOffset::kMinimum) {
    result.minimum = HalfToFloat(reinterpret_cast<const uint16_t*>(offsets)[at]);
  } else if (matrix.offset == WeightOffset::kZeroPoint) {
    result.zero = static_cast<int32_t>(offsets[at]);
  } else {
    result.zero = middle;
  }
  return result;
}

// The same in a loop over a chunk: `of_chunk` are its parameters, `header` the tile's. Each load
// knows which memory it is of; a pointer to either would be a generic one.
template <int kBits, int kGroupChannels>
__device__ __forceinline__ GroupScale ScaleOfChunk(const IntMatrix& matrix, const std::byte* header,
                                                   const std::byte* of_chunk, int groups, int group,
                                                   int row) {
  if constexpr (kGroupChannels == kChunkChannels) {
    if (matrix.whole_rows) return LoadScale(matrix, kBits, header, 1, 0, row);
  }
  return LoadScale(matrix, kBits, of_chunk, groups, group, row);
}

// Sums of products that begin here are, read as float32, 1.5 x 2^23 and their integer: a group's
// sum is less than 2^22, where neighbours are 1 apart. So the difference of two is that of the
// integers, exactly, and none is converted.
inline constexpr int32_t kProductsBegin = 0x4b400000;

// Adds one group: `products` is the sum of (q - zero) x, `x_scale` and `x_sum` are the
// activations'.
__device__ __forceinline__ float AddProducts(const GroupScale& weight, bool has_minimum,
                                             float products, float x_scale, int32_t x_sum,
                                             float sum) {
  sum = fmaf(weight.scale * x_scale, products, sum);
  if (has_minimum) sum = fmaf(weight.minimum, x_scale * static_cast<float>(x_sum), sum);
  return sum;
}
// The same of the sum of q x.
__device__ __forceinline__ float AddGroup(const GroupScale& weight, bool has_minimum,
                                          int32_t products, float x_scale, int32_t x_sum,
                                          float sum) {
  const auto exact = static_cast<float>(products - weight.zero * x_sum);
  return AddProducts(weight, has_minimum, exact, x_scale, x_sum, sum);
}

__device__ __forceinline__ void WriteResult(const IntMatrix& matrix, int64_t tokens, int64_t row,
                                            int64_t token, float sum) {
  if (row >= matrix.rows || token >= tokens) return;
  if (matrix.bias != nullptr) sum += matrix.bias[row];
  float& y = matrix.y[token * matrix.y_stride + row];
  y = matrix.add_to_y ? y + sum : sum;
}

// What a chunk of integers has; the last one may be short.
struct ChunkShape {
  int groups;
  int value_bytes;
};
template <int kBits, int kGroupChannels>
__device__ __forceinline__ ChunkShape ShapeOfChunk(const IntMatrix& matrix, int chunk) {
  if (chunk + 1 < matrix.num_chunks) {
    return {Groups<kGroupChannels>::kCount, kChunkValueBytes<kBits>};
  }
  constexpr int kUnitChannels = kBits < 8 ? 2 * kStepChannels : kStepChannels;
  const int channels = matrix.padded_cols - chunk * kChunkChannels;
  return {(channels + kGroupChannels - 1) / kGroupChannels,
          channels / kUnitChannels * kUnitBytes<kBits>};
}

__device__ __forceinline__ ChunkShape ShapeOfChunk(const GpuLayout& layout, int64_t chunk) {
  const int64_t rest = layout.padded_cols - chunk * kGpuChunkChannels;
  const int64_t channels = rest < kGpuChunkChannels ? rest : kGpuChunkChannels;
  return {static_cast<int>((channels + layout.group_size - 1) / layout.group_size),
          static_cast<int>(channels / layout.unit_channels * layout.unit_bytes)};
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_MATMUL_INT_H_
