// Float weights on the tensor cores in tf32, which has the range of float32 and holds f16 and bf16
// exactly. An activation is split into two tf32 numbers, which together hold 22 bits of it, and so
// is a weight in f32; the product of the two low parts is left out.
#include "kernels/cuda/matmul_float.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kWarps = 4;  // of a block; they take units of channels in turn
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kRows = static_cast<int>(kTileRows);
constexpr int kMostTokenTiles = 8;

struct alignas(16) Words4 {
  uint32_t word[4];
};

struct Split {
  float high, low;
};
__device__ __forceinline__ Split SplitTf32(float value) {
  const float high = ToTf32(value);
  const float rest = value - high;
  return {high, rest == rest ? ToTf32(rest) : 0.0f};  // infinity less itself is not a number
}

template <WeightKind kKind>
__device__ __forceinline__ float WeightAt(const Words4& words, int word, int half) {
  if constexpr (kKind == WeightKind::kF32) {
    return FloatFromBits(words.word[word]);
  } else if constexpr (kKind == WeightKind::kBF16) {
    return FloatFromBits(half == 0 ? words.word[word] << 16 : words.word[word] & 0xffff0000u);
  } else {
    return HalfToFloat(static_cast<uint16_t>(words.word[word] >> (16 * half)));
  }
}

// The left operand of step `step` of a unit: 16 rows x 8 channels.
template <WeightKind kKind>
__device__ __forceinline__ void Operand(const Words4& words, int step, float (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a[i] = kKind == WeightKind::kF32 ? WeightAt<kKind>(words, i, 0)
                                     : WeightAt<kKind>(words, 2 * step + i % 2, i / 2);
  }
}

template <WeightKind kKind, int kTokenTiles>
__device__ __forceinline__ void MultiplyUnit(const FloatMatmul& args, const Words4& words,
                                             int64_t channel, int64_t first_token,
                                             float (&sums)[kTokenTiles][4]) {
  constexpr int kSteps = kKind == WeightKind::kF32 ? 1 : 2;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    float a[4];
    Operand<kKind>(words, step, a);
    float a_low[4];
    if constexpr (kKind == WeightKind::kF32) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const Split split = SplitTf32(a[i]);
        a[i] = split.high;
        a_low[i] = split.low;
      }
    }
    const int64_t k = channel + 2 * kSteps * t + 2 * step;
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const int64_t token = first_token + n * 8 + g;
      const bool valid = token < args.tokens;
      const float* x = args.x + token * args.x_stride;
      const Split b0 = SplitTf32(valid && k < args.layout.cols ? x[k] : 0.0f);
      const Split b1 = SplitTf32(valid && k + 1 < args.layout.cols ? x[k + 1] : 0.0f);
      MmaTf32(sums[n], a, b0.low, b1.low);
      if constexpr (kKind == WeightKind::kF32) MmaTf32(sums[n], a_low, b0.high, b1.high);
      MmaTf32(sums[n], a, b0.high, b1.high);
    }
  }
}

template <WeightKind kKind, int kTokenTiles>
__global__ void __launch_bounds__(kThreads, 1) MatmulFloatKernel(FloatMatmul args) {
  LetLaterWorkStart();
  constexpr int kTokens = 8 * kTokenTiles;
  const GpuLayout& layout = args.layout;
  const int64_t first_token = BlockY() * kTokens;
  const std::byte* tile = args.tiles + BlockX() * layout.tile_bytes;
  const int64_t units_of_chunk = kGpuChunkChannels / layout.unit_channels;
  const int64_t all = layout.padded_cols / layout.unit_channels;
  int64_t end = args.chunk_end * units_of_chunk;
  if (end > all) end = all;
  const auto load = [&](int64_t unit) {
    return reinterpret_cast<const Words4*>(tile + unit * kGpuUnitBytes)[Lane()];
  };
  // Units of a warp that are on their way: few tokens are bound by reading weights.
  constexpr int kAhead = kTokenTiles <= 2 ? 4 : 1;
  float sums[kTokenTiles][4] = {};
  const int64_t first = args.chunk_begin * units_of_chunk + Warp();
  Words4 next[kAhead] = {};
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (first + i * kWarps < end) next[i] = load(first + i * kWarps);
  }
  WaitForEarlierWork();
  for (int64_t begin = first; begin < end; begin += kAhead * kWarps) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t unit = begin + i * kWarps;
      if (unit >= end) break;
      const Words4 words = next[i];
      if (unit + kAhead * kWarps < end) next[i] = load(unit + kAhead * kWarps);
      MultiplyUnit<kKind, kTokenTiles>(args, words, unit * layout.unit_channels, first_token, sums);
    }
  }
  auto* shared = SharedMemory<float>();  // [warp][token][row]
#pragma unroll
  for (int i = 0; i < kTokenTiles * 4; ++i) {
    const int token = i / 4 * 8 + Lane() % 4 * 2 + i % 2;
    const int row = Lane() / 4 + i % 4 / 2 * 8;
    shared[(Warp() * kTokens + token) * kRows + row] = sums[i / 4][i % 4];
  }
  SyncThreads();
  for (int i = ThreadIndex(); i < kTokens * kRows; i += kThreads) {
    const int64_t token = first_token + i / kRows;
    const int64_t row = BlockX() * kRows + i % kRows;
    if (token >= args.tokens || row >= args.rows) continue;
    float sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp * kTokens * kRows + i];
    if (args.bias != nullptr) sum += args.bias[row];
    float& y = args.y[token * args.y_stride + row];
    y = args.add_to_y ? y + sum : sum;
  }
}

template <WeightKind kKind, int kTokenTiles>
void LaunchFloat(const FloatMatmul& args, CUstream_st* stream) {
  constexpr int64_t kTokens = 8 * kTokenTiles;
  Launch<MatmulFloatKernel<kKind, kTokenTiles>>(
      {args.num_tiles, (args.tokens + kTokens - 1) / kTokens}, kThreads,
      sizeof(float) * kWarps * kTokens * kRows, stream, args);
}

template <WeightKind kKind>
void ChooseTokens(const FloatMatmul& args, CUstream_st* stream) {
  if (args.tokens <= 8) return LaunchFloat<kKind, 1>(args, stream);
  if (args.tokens <= 16) return LaunchFloat<kKind, 2>(args, stream);
  if (args.tokens <= 32) return LaunchFloat<kKind, 4>(args, stream);
  LaunchFloat<kKind, kMostTokenTiles>(args, stream);
}

}  // namespace

void MatmulFloat(const FloatMatmul& args, CUstream_st* stream) {
  switch (args.layout.kind) {
    case WeightKind::kF32:
      return ChooseTokens<WeightKind::kF32>(args, stream);
    case WeightKind::kF16:
      return ChooseTokens<WeightKind::kF16>(args, stream);
    default:
      return ChooseTokens<WeightKind::kBF16>(args, stream);
  }
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
