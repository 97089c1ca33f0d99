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
  static __device__ __forceinline__ int StageBytes(int chunk_bytes) {
    return static_cast<int>(sizeof(Activations)) + kTiles * chunk_bytes;
  }
};

// A warp copies its tile of the block, which begins at tile `block_tile`.
template <typename S>
__device__ __forceinline__ void CopyWeights(const IntMatrix& matrix, int block_tile, int chunk,
                                            std::byte* stage) {
  if (chunk >= matrix.chunk_end) return;
  const int bytes = chunk + 1 < matrix.num_chunks ? matrix.chunk_bytes : matrix.last_chunk_bytes;
  const int tile = block_tile + Warp();
  const bool is_tile = tile < matrix.num_tiles;
  const std::byte* from = matrix.tiles + int64_t{is_tile ? tile : 0} * matrix.tile_bytes +
                          matrix.header_bytes + int64_t{chunk} * matrix.chunk_bytes + Lane() * 16;
  std::byte* to =
      stage + sizeof(typename S::Activations) + Warp() * matrix.chunk_bytes + Lane() * 16;
  constexpr int kMost = kChunkValueBytes<S::kBits> + kMostParameterBytes;
#pragma unroll
  for (int i = 0; i < kMost; i += kWarpThreads * 16) {
    if (i + Lane() * 16 < bytes) CopyAsync16(to + i, from + i, is_tile);
  }
}

template <typename S>
__device__ __forceinline__ void CopyActivations(const IntMatmul& args, const IntMatrix& matrix,
                                                int chunk, std::byte* stage) {
  if (chunk >= matrix.chunk_end) return;
  auto* activations = reinterpret_cast<typename S::Activations*>(stage);
  const int64_t first_token = BlockX() * S::kTokens;
  constexpr int kPieces = kChunkChannels / 16;
  const int piece = ThreadIndex() % kPieces * 16;
  const int channel = chunk * kChunkChannels + piece;
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
    const int group = chunk * S::kGroups + i % S::kGroups;
    const bool valid = first_token + token < args.tokens && group < args.x.groups;
    const int64_t at = valid ? (first_token + token) * args.x.groups + group : 0;
    CopyAsync4(&activations->scales[i % S::kGroups][token], args.x.scales + at, valid);
    CopyAsync4(&activations->sums[i % S::kGroups][token], args.x.sums + at, valid);
  }
}

// One group of a chunk into the warp's sums: 32 rows x 32 tokens.
template <int kBits, int kGroupChannels, typename S>
__device__ __forceinline__ void AddGroupOfTile(const IntMatrix& matrix, int block_tile,
                                               const std::byte* stage, const ChunkShape& shape,
                                               int group, int first_tile, int first_token,
                                               float (&sums)[kWarpTiles][kWarpTokenTiles][4]) {
  const auto* x = reinterpret_cast<const typename S::Activations*>(stage);
  const std::byte* weights = stage + sizeof(typename S::Activations);
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  int32_t products[kWarpTiles][kWarpTokenTiles][4] = {};
#pragma unroll
  for (int i = 0; i < Groups<kGroupChannels>::kSteps; ++i) {
    const int step = Groups<kGroupChannels>::StepOf(group, i);
    if (step * kStepChannels >= shape.channels) break;
    uint32_t a[kWarpTiles][4];
#pragma unroll
    for (int tile = 0; tile < kWarpTiles; ++tile) {
      LoadWeights<kBits>(weights + (first_tile + tile) * matrix.chunk_bytes, step, a[tile]);
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
  const bool has_minimum = matrix.offset == WeightOffset::kMinimum;
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = block_tile + first_tile + tile;
      const GroupScale weight = ScaleOfChunk<kBits, kGroupChannels>(
          matrix, matrix.tiles + int64_t{at < matrix.num_tiles ? at : 0} * matrix.tile_bytes,
          weights + (first_tile + tile) * matrix.chunk_bytes + shape.value_bytes, shape.groups,
          group, g + 8 * half);
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

// Two blocks to a multiprocessor where their registers allow it: adding up small groups keeps more.
template <int kBits, int kGroupChannels, int kRowWarps, int kTokenWarps>
__global__ void __launch_bounds__(kRowWarps* kTokenWarps* kWarpThreads,
                                  kGroupChannels == kChunkChannels && kRowWarps == 4 ? 2 : 1)
    MatmulManyKernel(IntMatmul args) {
  LetLaterWorkStart();
  using S = Shape<kBits, kGroupChannels, kRowWarps, kTokenWarps>;
  auto* stages = SharedMemory<std::byte>();
  const BlockPlace place = PlaceOf(args, S::kTiles, static_cast<int>(BlockY()));
  const IntMatrix& matrix = args.matrices[place.matrix];
  const int block_tile = place.block * S::kTiles;
  const int stage_bytes = S::StageBytes(matrix.chunk_bytes);
  const int first_tile = Warp() % kRowWarps * kWarpTiles;
  const int first_token = Warp() / kRowWarps * kWarpTokens;
  const int first_chunk = matrix.chunk_begin;
  const int count = matrix.chunk_end - first_chunk;
  float sums[kWarpTiles][kWarpTokenTiles][4] = {};

  for (int i = 0; i + 1 < kStages; ++i) {
    CopyWeights<S>(matrix, block_tile, first_chunk + i, stages + i * stage_bytes);
  }
  WaitForEarlierWork();
  for (int i = 0; i + 1 < kStages; ++i) {
    CopyActivations<S>(args, matrix, first_chunk + i, stages + i * stage_bytes);
    CommitCopies();
  }
  for (int i = 0; i < count; ++i) {
    WaitCopies<kStages - 2>();
    SyncThreads();  // also: every warp is done with the stage that is filled next
    const int next = i + kStages - 1;
    std::byte* const refilled = stages + next % kStages * stage_bytes;
    CopyWeights<S>(matrix, block_tile, first_chunk + next, refilled);
    CopyActivations<S>(args, matrix, first_chunk + next, refilled);
    CommitCopies();
    const int chunk = first_chunk + i;
    const ChunkShape shape = ShapeOfChunk<kBits, kGroupChannels>(matrix, chunk);
#pragma unroll
    for (int group = 0; group < S::kGroups; ++group) {
      if (chunk * S::kGroups + group >= args.x.groups) break;
      AddGroupOfTile<kBits, kGroupChannels, S>(matrix, block_tile,
                                               stages + i % kStages * stage_bytes, shape, group,
                                               first_tile, first_token, sums);
    }
  }
#pragma unroll
  for (int i = 0; i < kWarpTiles * kWarpTokenTiles * 4; ++i) {
    const int tile = i / (kWarpTokenTiles * 4);
    const int n = i / 4 % kWarpTokenTiles;
    const int64_t row =
        int64_t{block_tile + first_tile + tile} * kRows + Lane() / 4 + i % 4 / 2 * 8;
    const int64_t token = BlockX() * S::kTokens + first_token + n * 8 + Lane() % 4 * 2 + i % 2;
    WriteResult(matrix, args.tokens, row, token, sums[tile][n][i % 4]);
  }
}

template <int kBits, int kGroupChannels, int kRowWarps, int kTokenWarps>
void LaunchMany(const IntMatmul& args, CUstream_st* stream) {
  using S = Shape<kBits, kGroupChannels, kRowWarps, kTokenWarps>;
  const size_t stage_bytes =
      sizeof(typename S::Activations) + static_cast<size_t>(S::kTiles * MostChunkBytes(args));
  Launch<MatmulManyKernel<kBits, kGroupChannels, kRowWarps, kTokenWarps>>(
      {(args.tokens + S::kTokens - 1) / S::kTokens, BlocksOf(args, S::kTiles)}, S::kThreads,
      kStages * stage_bytes, stream, args);
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
  if (args.group_size == 32) return ChooseTokens<kBits, 32>(args, stream);
  if (args.group_size == 64) return ChooseTokens<kBits, 64>(args, stream);
  ChooseTokens<kBits, 128>(args, stream);
}

}  // namespace

void MatmulManyTokens(const IntMatmul& args, CUstream_st* stream) {
  if (args.bits == 4) return ChooseGroup<4>(args, stream);
  if (args.bits == 5) return ChooseTokens<5, 32>(args, stream);
  if (args.bits == 6) return ChooseTokens<6, 16>(args, stream);
  if (args.group_size == 16) return ChooseTokens<8, 16>(args, stream);
  ChooseGroup<8>(args, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
