// Integer weights times many tokens: bound by the tensor cores. A block takes rows x tokens
// and walks over the channels; chunks of weights, activations and their scales come in a ring of
// copies, every warp multiplies 32 rows by 32 tokens and adds up its groups in registers.
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kStages = 3;
constexpr int kRows = static_cast<int>(kTileRows);
constexpr int kWarpTiles = 2;       // tiles of weights, of a warp
constexpr int kWarpTokenTiles = 4;  // 8 tokens each
constexpr int kWarpTokens = 8 * kWarpTokenTiles;
// A row of 128 activations and 32 bytes more, so that the lanes' loads meet all banks.
constexpr int kActivationStride = static_cast<int>(kGpuChunkChannels) + 32;

// What a block holds of one chunk, besides the weights.
template <int kTokens, int kGroups>
struct ChunkActivations {
  alignas(16) int8_t values[kTokens][kActivationStride];
  alignas(16) float scales[kGroups][kTokens];
  alignas(16) int32_t sums[kGroups][kTokens];
};

// Sizes of a block of kRowWarps x kTokenWarps warps.
template <int kWeightBits, int kGroupChannels, int kRowWarps, int kTokenWarps>
struct Shape {
  static constexpr int kBits = kWeightBits;
  static constexpr int kThreads = kRowWarps * kTokenWarps * kWarpThreads;
  static constexpr int kTiles = kRowWarps * kWarpTiles;
  static constexpr int kTokens = kTokenWarps * kWarpTokens;
  static constexpr int kGroups = Groups<kGroupChannels>::kCount;
  static_assert(kTiles == kThreads / kWarpThreads, "each warp copies a tile");
  using Activations = ChunkActivations<kTokens, kGroups>;
  static __device__ __forceinline__ int StageBytes(const GpuLayout& layout) {
    return static_cast<int>(sizeof(Activations)) + kTiles * static_cast<int>(layout.chunk_bytes);
  }
};

// What a chunk has: all of them 128 channels but the last one.
struct ChunkExtent {
  int channels;
  int groups;
  int value_bytes;
  int bytes;
};
template <typename S>
__device__ __forceinline__ ChunkExtent ExtentOfChunk(const GpuLayout& layout, int chunk) {
  if (chunk + 1 < layout.num_chunks) {
    return {static_cast<int>(kGpuChunkChannels), S::kGroups, kChunkValueBytes<S::kBits>,
            static_cast<int>(layout.chunk_bytes)};
  }
  const ChunkShape shape = ShapeOfChunk(layout, chunk);
  return {static_cast<int>(shape.channels), shape.groups, static_cast<int>(shape.value_bytes),
          static_cast<int>(shape.size_bytes)};
}

template <typename S>
__device__ __forceinline__ void StartCopies(const IntMatmul& args, int chunk, std::byte* stage) {
  if (chunk < args.chunk_end) {
    auto* activations = reinterpret_cast<typename S::Activations*>(stage);
    const GpuLayout& layout = args.layout;
    const int bytes = ExtentOfChunk<S>(layout, chunk).bytes;
    const int64_t tile = BlockY() * S::kTiles + Warp();
    const bool is_tile = tile < args.num_tiles;
    const std::byte* from = args.tiles + (is_tile ? tile : 0) * layout.tile_bytes +
                            layout.header_bytes + chunk * layout.chunk_bytes + Lane() * 16;
    std::byte* weights = stage + sizeof(typename S::Activations) +
                         Warp() * static_cast<int>(layout.chunk_bytes) + Lane() * 16;
    constexpr int kMost = kChunkValueBytes<S::kBits> + kMostParameterBytes;
#pragma unroll
    for (int i = 0; i < kMost; i += kWarpThreads * 16) {
      if (i + Lane() * 16 < bytes) CopyAsync16(weights + i, from + i, is_tile);
    }

    const int64_t first_token = BlockX() * S::kTokens;
    constexpr int kPieces = static_cast<int>(kGpuChunkChannels) / 16;
    const int piece = ThreadIndex() % kPieces * 16;
    const int64_t channel = chunk * kGpuChunkChannels + piece;
#pragma unroll
    for (int i = 0; i < S::kTokens; i += S::kThreads / kPieces) {
      const int token = i + ThreadIndex() / kPieces;
      const bool valid = first_token + token < args.tokens && channel < args.x.padded_cols;
      const int64_t at = valid ? (first_token + token) * args.x.padded_cols + channel : 0;
      CopyAsync16(&activations->values[token][piece], args.x.values + at, valid);
    }
#pragma unroll
    for (int i = ThreadIndex(); i < S::kTokens * S::kGroups; i += S::kThreads) {
      const int token = i / S::kGroups;
      const int64_t group = int64_t{chunk} * S::kGroups + i % S::kGroups;
      const bool valid = first_token + token < args.tokens && group < args.x.groups;
      const int64_t at = valid ? (first_token + token) * args.x.groups + group : 0;
      CopyAsync4(&activations->scales[i % S::kGroups][token], args.x.scales + at, valid);
      CopyAsync4(&activations->sums[i % S::kGroups][token], args.x.sums + at, valid);
    }
  }
  CommitCopies();
}

// One group of a chunk into the warp's sums: 32 rows x 32 tokens.
template <int kBits, int kGroupChannels, typename S>
__device__ __forceinline__ void AddGroupOfTile(const IntMatmul& args, const std::byte* stage,
                                               const ChunkExtent& extent, int group, int first_tile,
                                               int first_token,
                                               float (&sums)[kWarpTiles][kWarpTokenTiles][4]) {
  const auto* x = reinterpret_cast<const typename S::Activations*>(stage);
  const std::byte* weights = stage + sizeof(typename S::Activations);
  const GpuLayout& layout = args.layout;
  const auto chunk_bytes = static_cast<int>(layout.chunk_bytes);
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  int32_t products[kWarpTiles][kWarpTokenTiles][4] = {};
#pragma unroll
  for (int i = 0; i < Groups<kGroupChannels>::kSteps; ++i) {
    const int step = Groups<kGroupChannels>::StepOf(group, i);
    if (step * kStepChannels >= extent.channels) break;
    uint32_t a[kWarpTiles][4];
#pragma unroll
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      LoadWeights<kBits>(weights + (first_tile + tile) * chunk_bytes, step, a[tile]);
    }
#pragma unroll
    for (int n = 0; n < kWarpTokenTiles; ++n) {
      auto b = *reinterpret_cast<const Words2*>(
          &x->values[first_token + n * 8 + g][step * kStepChannels + 8 * t]);
      if (!Groups<kGroupChannels>::IsMine(group)) b = {};
#pragma unroll
      for (int tile = 0; tile < kWarpTiles; ++tile) {
        MmaU8S8(products[tile][n], a[tile], b.word[0], b.word[1]);
      }
    }
  }
  const bool has_minimum = layout.offset == WeightOffset::kMinimum;
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = BlockY() * S::kTiles + first_tile + tile;
      const GroupScale weight = ScaleOfChunk<kGroupChannels>(
          layout, args.tiles + (at < args.num_tiles ? at : 0) * layout.tile_bytes,
          weights + (first_tile + tile) * chunk_bytes + extent.value_bytes, extent.groups, group,
          g + 8 * half);
#pragma unroll
      for (int i = 0; i < 2 * kWarpTokenTiles; ++i) {
        const int token = first_token + i / 2 * 8 + 2 * t + i % 2;
        float& sum = sums[tile][i / 2][2 * half + i % 2];
        sum = AddGroup(weight, has_minimum, products[tile][i / 2][2 * half + i % 2],
                       x->scales[group][token], x->sums[group][token], sum);
      }
    }
  }
}

template <int kBits, int kGroupChannels, int kRowWarps, int kTokenWarps>
__global__ void __launch_bounds__(kRowWarps* kTokenWarps* kWarpThreads)
    MatmulManyKernel(IntMatmul args) {
  TakeTurn();
  using S = Shape<kBits, kGroupChannels, kRowWarps, kTokenWarps>;
  auto* stages = SharedMemory<std::byte>();
  const int stage_bytes = S::StageBytes(args.layout);
  const int first_tile = Warp() % kRowWarps * kWarpTiles;
  const int first_token = Warp() / kRowWarps * kWarpTokens;
  const auto first_chunk = static_cast<int>(args.chunk_begin);
  const int count = static_cast<int>(args.chunk_end) - first_chunk;
  float sums[kWarpTiles][kWarpTokenTiles][4] = {};

  for (int i = 0; i + 1 < kStages; ++i) {
    StartCopies<S>(args, first_chunk + i, stages + i * stage_bytes);
  }
  for (int i = 0; i < count; ++i) {
    WaitCopies<kStages - 2>();
    SyncThreads();  // also: every warp is done with the stage that is filled next
    const int next = i + kStages - 1;
    StartCopies<S>(args, first_chunk + next, stages + next % kStages * stage_bytes);
    const int chunk = first_chunk + i;
    const ChunkExtent extent = ExtentOfChunk<S>(args.layout, chunk);
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) {
      if (chunk * S::kGroups + group >= args.x.groups) break;
      AddGroupOfTile<kBits, kGroupChannels, S>(args, stages + i % kStages * stage_bytes, extent,
                                               group, first_tile, first_token, sums);
    }
  }
#pragma unroll
  for (int i = 0; i < kWarpTiles * kWarpTokenTiles * 4; ++i) {
    const int tile = i / (kWarpTokenTiles * 4);
    const int n = i / 4 % kWarpTokenTiles;
    const int64_t row =
        (BlockY() * S::kTiles + first_tile + tile) * kRows + Lane() / 4 + i % 4 / 2 * 8;
    const int64_t token = BlockX() * S::kTokens + first_token + n * 8 + Lane() % 4 * 2 + i % 2;
    WriteResult(args, row, token, sums[tile][n][i % 4]);
  }
}

template <int kBits, int kGroupChannels, int kRowWarps, int kTokenWarps>
void LaunchMany(const IntMatmul& args, CUstream_st* stream) {
  using S = Shape<kBits, kGroupChannels, kRowWarps, kTokenWarps>;
  const size_t stage_bytes =
      sizeof(typename S::Activations) + static_cast<size_t>(S::kTiles * args.layout.chunk_bytes);
  Launch<MatmulManyKernel<kBits, kGroupChannels, kRowWarps, kTokenWarps>>(
      {(args.tokens + S::kTokens - 1) / S::kTokens, (args.num_tiles + S::kTiles - 1) / S::kTiles},
      S::kThreads, kStages * stage_bytes, stream, args);
}

// Few rows to a block while there is one block of tokens, so that there are blocks for all
// multiprocessors; later many, so that weights and activations are read less often.
template <int kBits, int kGroupChannels>
void ChooseTokens(const IntMatmul& args, CUstream_st* stream) {
  // Groups of 16 come with more scales than a GPU of compute capability 8.6 has shared memory for.
  constexpr int kRowWarps = kGroupChannels < kStepChannels ? 2 : 4;
  if (args.tokens <= 2 * kWarpTokens) {
    LaunchMany<kBits, kGroupChannels, 1, 2>(args, stream);
  } else {
    LaunchMany<kBits, kGroupChannels, kRowWarps, 2>(args, stream);
  }
}

template <int kBits>
void ChooseGroup(const IntMatmul& args, CUstream_st* stream) {
  if (args.layout.group_size == 32) return ChooseTokens<kBits, 32>(args, stream);
  if (args.layout.group_size == 64) return ChooseTokens<kBits, 64>(args, stream);
  ChooseTokens<kBits, 128>(args, stream);
}

}  // namespace

void MatmulManyTokens(const IntMatmul& args, CUstream_st* stream) {
  if (args.layout.bits == 4) return ChooseGroup<4>(args, stream);
  if (args.layout.bits == 5) return ChooseTokens<5, 32>(args, stream);
  if (args.layout.bits == 6) return ChooseTokens<6, 16>(args, stream);
  if (args.layout.group_size == 16) return ChooseTokens<8, 16>(args, stream);
  ChooseGroup<8>(args, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
