// What products in f16 need beside the product itself (f16_products.h): activations and panels of
// weights in f16, and the powers of two that keep activations within f16's range.
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kRows = static_cast<int>(kTileRows);

struct Panel {
  GpuLayout layout;
  const std::byte* tiles;
  uint16_t* out;
  int64_t width;  // of a row of `out`
};

__device__ __forceinline__ uint32_t Pair(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

// s (q - z) or s q + m in float32, rounded as the file's specification says, then to f16.
__device__ __forceinline__ uint16_t HalfOf(const GroupScale& scale, bool has_minimum,
                                           uint32_t integer) {
  const float product = scale.scale * static_cast<float>(static_cast<int>(integer) - scale.zero);
  return FloatToHalf(has_minimum ? product + scale.minimum : product);
}

// The 8 weights of a lane in one row: `words` are 4 integers each. Those from `left` on are beyond
// the matrix, where a stored 0 is no weight of 0.
__device__ __forceinline__ Words4 HalvesOf(const GroupScale& scale, bool has_minimum,
                                           const uint32_t (&words)[2], int64_t left) {
  uint16_t halves[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t integer = (words[i / 4] >> (8 * (i % 4))) & 255;
    halves[i] = i < left ? HalfOf(scale, has_minimum, integer) : static_cast<uint16_t>(0);
  }
  Words4 out;
#pragma unroll
  for (int i = 0; i < 4; ++i) out.word[i] = Pair(halves[2 * i], halves[2 * i + 1]);
  return out;
}

// A warp takes a chunk of a tile: 16 rows x 128 channels. A lane's 8 channels of a row are 16 bytes
// of f16, and four lanes write 64 in a row.
template <int kBits>
__global__ void __launch_bounds__(kThreads) UnpackIntKernel(Panel panel) {
  TakeTurn();
  const GpuLayout& layout = panel.layout;
  const int64_t chunk = BlockY() * kWarps + Warp();
  if (chunk >= layout.num_chunks) return;
  const std::byte* tile = panel.tiles + BlockX() * layout.tile_bytes;
  const std::byte* bytes = tile + layout.header_bytes + chunk * layout.chunk_bytes;
  const ChunkShape shape = ShapeOfChunk(layout, chunk);
  const std::byte* parameters = layout.whole_rows ? tile : bytes + shape.value_bytes;
  const bool has_minimum = layout.offset == WeightOffset::kMinimum;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
#pragma unroll
  for (int step = 0; step < kChunkSteps; ++step) {
    const int64_t channel = chunk * kGpuChunkChannels + step * kStepChannels + 8 * t;
    if (channel >= panel.width) break;
    uint32_t q[4];
    LoadWeights<kBits>(bytes, step, q);
    const int group = layout.whole_rows
                          ? 0
                          : (step * kStepChannels + 8 * t) / static_cast<int>(layout.group_size);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + 8 * half;
      const GroupScale scale =
          LoadScale(layout, kBits, parameters, layout.whole_rows ? 1 : shape.groups, group, row);
      const uint32_t words[2] = {q[half], q[half + 2]};
      uint16_t* out = panel.out + (BlockX() * kRows + row) * panel.width + channel;
      *reinterpret_cast<Words4*>(out) = HalvesOf(scale, has_minimum, words, layout.cols - channel);
    }
  }
}

__device__ __forceinline__ uint16_t HalfOfBf16(uint32_t bits) {
  return FloatToHalf(FloatFromBits(bits << 16));
}

// The same for float kinds, whose padding is zeros.
template <WeightKind kKind>
__global__ void __launch_bounds__(kThreads) UnpackFloatKernel(Panel panel) {
  TakeTurn();
  constexpr int kChannels = kKind == WeightKind::kF32 ? 8 : 16;  // of a unit
  const GpuLayout& layout = panel.layout;
  const int64_t chunk = BlockY() * kWarps + Warp();
  if (chunk >= layout.num_chunks) return;
  const std::byte* bytes = panel.tiles + BlockX() * layout.tile_bytes + chunk * layout.chunk_bytes;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  for (int unit = 0; unit < static_cast<int>(kGpuChunkChannels) / kChannels; ++unit) {
    const int64_t channel = chunk * kGpuChunkChannels + unit * kChannels;
    if (channel >= panel.width) break;
    Words4 words = {};
    if (channel < layout.padded_cols) {
      words = reinterpret_cast<const Words4*>(bytes + unit * kGpuUnitBytes)[Lane()];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t first = words.word[half];
      const uint32_t second = words.word[half + 2];
      uint16_t* out = panel.out + (BlockX() * kRows + g + 8 * half) * panel.width + channel;
      if constexpr (kKind == WeightKind::kF32) {
        *reinterpret_cast<uint32_t*>(out + 2 * t) =
            Pair(FloatToHalf(FloatFromBits(first)), FloatToHalf(FloatFromBits(second)));
      } else if constexpr (kKind == WeightKind::kBF16) {
        *reinterpret_cast<Words2*>(out + 4 * t) = {
            {Pair(HalfOfBf16(first & 0xffff), HalfOfBf16(first >> 16)),
             Pair(HalfOfBf16(second & 0xffff), HalfOfBf16(second >> 16))}};
      } else {
        *reinterpret_cast<Words2*>(out + 4 * t) = {{first, second}};
      }
    }
  }
}

__device__ __forceinline__ float PowerOfTwo(int exponent) {
  return FloatFromBits(static_cast<uint32_t>(127 + exponent) << 23);
}

// The power of two that a token's activations are divided by, from the bits of their largest
// magnitude. f16 ends below 2^16 and is coarse below 2^-14: magnitudes from 2^15 on are brought
// below that, tokens without one of 2^-8 to about 1, as far as 2^24 does it (what is added to the
// product is multiplied too, and must not overflow).
__device__ __forceinline__ int ExponentFor(uint32_t largest) {
  constexpr int kMost = 14;
  constexpr int kLeast = -8;
  constexpr int kMostUp = -24;
  if (largest == 0 || largest >= 0x7f800000u) return 0;
  const int exponent = static_cast<int>(largest >> 23) - 127;
  if (exponent > kMost) return exponent - kMost;
  if (exponent >= kLeast) return 0;
  return exponent > kMostUp ? exponent : kMostUp;
}

constexpr int kRoundThreads = 256;

// A block for each token.
__global__ void __launch_bounds__(kRoundThreads) RoundF16Kernel(RoundF16Args args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const float* x = args.x + token * args.x_stride;
  // Of magnitudes the order is that of their bits, with what is not finite above the others.
  uint32_t largest = 0;
  for (int64_t k = ThreadIndex(); k < args.cols; k += kRoundThreads) {
    const uint32_t bits = BitsOfFloat(x[k]) & 0x7fffffffu;
    if (bits > largest) largest = bits;
  }
  for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) {
    const uint32_t other = ShuffleXor(largest, mask);
    if (other > largest) largest = other;
  }
  auto* of_warps = SharedMemory<uint32_t>();
  if (Lane() == 0) of_warps[Warp()] = largest;
  SyncThreads();
  for (int i = 0; i < kRoundThreads / kWarpThreads; ++i) {
    if (of_warps[i] > largest) largest = of_warps[i];
  }
  const int exponent = ExponentFor(largest);
  if (ThreadIndex() == 0) args.out.exponents[token] = exponent;
  const float scale = PowerOfTwo(-exponent);
  const auto half = [&](int64_t k) {
    return k < args.cols ? FloatToHalf(x[k] * scale) : static_cast<uint16_t>(0);
  };
  auto* out = reinterpret_cast<uint32_t*>(args.out.values + token * args.out.padded_cols);
  for (int64_t i = ThreadIndex(); i < args.out.padded_cols / 2; i += kRoundThreads) {
    out[i] = Pair(half(2 * i), half(2 * i + 1));
  }
}

constexpr int kShiftThreads = 256;
constexpr int64_t kShiftRows = 4 * kShiftThreads;  // of a block

__global__ void __launch_bounds__(kShiftThreads) ShiftRowsKernel(ShiftRowsArgs args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const int exponent = args.exponents[token];
  // Nearly all tokens: nothing is to be done.
  if (exponent == 0 && args.bias == nullptr && args.keep_y) return;
  const float scale = PowerOfTwo(args.down ? -exponent : exponent);
  const int64_t begin = BlockY() * kShiftRows;
  const int64_t end = begin + kShiftRows < args.rows ? begin + kShiftRows : args.rows;
  for (int64_t row = begin + ThreadIndex(); row < end; row += kShiftThreads) {
    float& y = args.y[token * args.y_stride + row];
    float sum = args.keep_y ? y : 0.0f;
    if (args.bias != nullptr) sum += args.bias[row];
    y = sum * scale;
  }
}

template <auto kKernel>
void LaunchUnpack(const Panel& panel, int64_t num_tiles, CUstream_st* stream) {
  Launch<kKernel>({num_tiles, (panel.layout.num_chunks + kWarps - 1) / kWarps}, kThreads, 0, stream,
                  panel);
}

}  // namespace

void UnpackF16(const UnpackF16Args& args, CUstream_st* stream) {
  const Result<GpuLayout> layout = MakeGpuLayout(*args.layout);
  if (!layout.ok()) return;  // the caller asked before: MakeGpuLayout is the answer
  const Panel panel = {*layout, args.tiles, args.out, PaddedF16Cols(layout->cols)};
  switch (layout->kind) {
    case WeightKind::kF32:
      return LaunchUnpack<UnpackFloatKernel<WeightKind::kF32>>(panel, args.num_tiles, stream);
    case WeightKind::kF16:
      return LaunchUnpack<UnpackFloatKernel<WeightKind::kF16>>(panel, args.num_tiles, stream);
    case WeightKind::kBF16:
      return LaunchUnpack<UnpackFloatKernel<WeightKind::kBF16>>(panel, args.num_tiles, stream);
    default:
      break;
  }
  if (layout->bits == 4) return LaunchUnpack<UnpackIntKernel<4>>(panel, args.num_tiles, stream);
  if (layout->bits == 5) return LaunchUnpack<UnpackIntKernel<5>>(panel, args.num_tiles, stream);
  if (layout->bits == 6) return LaunchUnpack<UnpackIntKernel<6>>(panel, args.num_tiles, stream);
  LaunchUnpack<UnpackIntKernel<8>>(panel, args.num_tiles, stream);
}

void RoundF16(const RoundF16Args& args, CUstream_st* stream) {
  Launch<RoundF16Kernel>({args.token_end - args.token_begin}, kRoundThreads,
                         sizeof(uint32_t) * kRoundThreads / kWarpThreads, stream, args);
}

void ShiftRows(const ShiftRowsArgs& args, CUstream_st* stream) {
  Launch<ShiftRowsKernel>(
      {args.token_end - args.token_begin, (args.rows + kShiftRows - 1) / kShiftRows}, kShiftThreads,
      0, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
