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

// What a thread copies next, chunk after chunk: of weights a piece of its warp's tile. Beyond the
// matrix's last tile that one is copied again, for rows that nobody asks for.
template <typename S>
struct WeightFeed {
  __device__ WeightFeed(const IntMatrix& matrix, int block_tile) {
    const int last_tile = matrix.num_tiles - 1;
    const int tile = block_tile + Warp() < last_tile ? block_tile + Warp() : last_tile;
    from = matrix.tiles + int64_t{tile} * matrix.tile_bytes + matrix.header_bytes +
           int64_t{matrix.chunk_begin} * matrix.chunk_bytes + Lane() * 16;
  }
  __device__ __forceinline__ void Copy(const IntMatrix& matrix, int chunk, std::byte* stage) {
    if (chunk >= matrix.chunk_end) return;
    std::byte* to =
        stage + sizeof(typename S::Activations) + Warp() * matrix.chunk_bytes + Lane() * 16;
    const int bytes = chunk + 1 < matrix.num_chunks ? matrix.chunk_bytes : matrix.last_chunk_bytes;
    constexpr int kOfWarp = kWarpThreads * 16;
    constexpr int kValues = kChunkValueBytes<S::kBits>;
    const bool is_whole = bytes >= kValues;
#pragma unroll
    for (int i = 0; i < kValues + kMostParameterBytes; i += kOfWarp) {
      if ((is_whole && i + kOfWarp <= kValues) || i + Lane() * 16 < bytes) {
        CopyAsync16(to + i, from + i);
      }
    }
    from += matrix.chunk_bytes;
  }

  const std::byte* from;
};

// Of activations pieces of several tokens, their scales and their sums. Beyond the last token that
// one is copied again.
template <typename S>
struct ActivationFeed {
  static constexpr int kPieces = kChunkChannels / 16;
  static constexpr int kTokensApart = S::kThreads / kPieces;
  static constexpr int kScales = S::kTokens * S::kGroups;
  // As many tokens are between a thread's scales.
  static constexpr int kScaleTokens = S::kThreads / S::kGroups;

  __device__ ActivationFeed(const IntMatmul& args, int first_chunk) {
    const int64_t first_token = BlockX() * S::kTokens;
    const int64_t rest = args.tokens - first_token;
    last_token = rest < S::kTokens ? static_cast<int>(rest) - 1 : S::kTokens - 1;
    values = args.x.values + first_token * args.x.padded_cols + first_chunk * kChunkChannels +
             ThreadIndex() % kPieces * 16;
    const int64_t first_scale =
        first_token * args.x.groups + first_chunk * S::kGroups + ThreadIndex() % S::kGroups;
    scales = args.x.scales + first_scale;
    sums = args.x.sums + first_scale;
  }
  __device__ __forceinline__ void Copy(const IntMatmul& args, const IntMatrix& matrix, int chunk,
                                       std::byte* stage) {
    if (chunk >= matrix.chunk_end) return;
    auto* to = reinterpret_cast<typename S::Activations*>(stage);
    const auto channels = static_cast<int>(args.x.padded_cols);
    const bool is_whole = (chunk + 1) * kChunkChannels <= channels;
    const int piece = ThreadIndex() % kPieces * 16;
    const bool has_piece = is_whole || chunk * kChunkChannels + piece < channels;
#pragma unroll
    for (int i = 0; i < S::kTokens; i += kTokensApart) {
      const int token = i + ThreadIndex() / kPieces;
      CopyAsync16(&to->values[token][piece], values + int64_t{There(token)} * channels, has_piece);
    }
    const auto groups = static_cast<int>(args.x.groups);
    const int group = ThreadIndex() % S::kGroups;
    const bool has_group = is_whole || chunk * S::kGroups + group < groups;
#pragma unroll
    for (int i = 0; i < (kScales + S::kThreads - 1) / S::kThreads; ++i) {
      const int token = i * kScaleTokens + ThreadIndex() / S::kGroups;
      if (kScales % S::kThreads != 0 && token >= S::kTokens) break;
      const int64_t at = int64_t{There(token)} * groups;
      CopyAsync4(&to->scales[group][token], scales + at, has_group);
      CopyAsync4(&to->sums[group][token], sums + at, has_group);
    }
    values += kChunkChannels;
    scales += S::kGroups;
    sums += S::kGroups;
  }
  __device__ __forceinline__ int There(int token) const {
    return token < last_token ? token : last_token;
  }

  int last_token;  // of the block
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
};

// One group of a chunk into the warp's sums: 32 rows x 32 tokens.
template <int kBits, int kGroupChannels, bool kPlain, typename S>
__device__ __forceinline__ void AddGroupOfTile(const IntMatrix& matrix, int block_tile,
                                               const std::byte* stage, const ChunkShape& shape,
                                               int group, int first_tile, int first_token,
                                               float (&sums)[kWarpTiles][kWarpTokenTiles][4]) {
  const auto* x = reinterpret_cast<const typename S::Activations*>(stage);
  const std::byte* weights = stage + sizeof(typename S::Activations);
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  const int32_t begin[2] = {kProductsBegin, kProductsBegin};
  int32_t products[kWarpTiles][kWarpTokenTiles][4];
#pragma unroll
  for (int i = 0; i < Groups<kGroupChannels>::kSteps; ++i) {
    // Behind the end of a row any weights do: the activations there are zeros.
    const int step = Groups<kGroupChannels>::StepOf(group, i);
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
        if (i == 0) {
          MmaU8S8(products[tile][n], a[tile], b.word[0], b.word[1], begin);
        } else {
          MmaU8S8(products[tile][n], a[tile], b.word[0], b.word[1]);
        }
      }
    }
  }
  // Plain: one number stands for zero in all rows, so a token's products are all off by the same.
  constexpr int32_t kMiddle = kPlain ? 1 << (kBits - 1) : 0;
  float zero[2 * kWarpTokenTiles];
#pragma unroll
  for (int i = 0; i < 2 * kWarpTokenTiles; ++i) {
    const int token = first_token + i / 2 * 8 + 2 * t + i % 2;
    zero[i] =
        FloatFromBits(static_cast<uint32_t>(kProductsBegin + kMiddle * x->sums[group][token]));
  }
  const bool has_minimum = !kPlain && matrix.offset == WeightOffset::kMinimum;
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
        int32_t integer = products[tile][i / 2][2 * half + i % 2];
        if (!kPlain) integer -= weight.zero * x->sums[group][token];
        float& sum = sums[tile][i / 2][2 * half + i % 2];
        sum = AddProducts(weight, has_minimum,
                          FloatFromBits(static_cast<uint32_t>(integer)) - zero[i],
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

  WeightFeed<S> weights(matrix, block_tile);
  ActivationFeed<S> activations(args, first_chunk);
  for (int i = 0; i + 1 < kStages; ++i) {
    weights.Copy(matrix, first_chunk + i, stages + i * stage_bytes);
  }
  WaitForEarlierWork();
  for (int i = 0; i + 1 < kStages; ++i) {
    activations.Copy(args, matrix, first_chunk + i, stages + i * stage_bytes);
    CommitCopies();
  }
  for (int i = 0; i < count; ++i) {
    WaitCopies<kStages - 2>();
    SyncThreads();  // also: every warp is done with the stage that is filled next
    const int next = i + kStages - 1;
    std::byte* const refilled = stages + next % kStages * stage_bytes;
    weights.Copy(matrix, first_chunk + next, refilled);
    activations.Copy(args, matrix, first_chunk + next, refilled);
    CommitCopies();
    const int chunk = first_chunk + i;
    const std::byte* const stage = stages + i % kStages * stage_bytes;
    const auto add = [&]<bool kPlain>() {
      const ChunkShape shape = ShapeOfChunk<kBits, kGroupChannels>(matrix, chunk);
#pragma unroll
      for (int group = 0; group < S::kGroups; ++group) {
        if (chunk * S::kGroups + group >= args.x.groups) break;
        AddGroupOfTile<kBits, kGroupChannels, kPlain, S>(matrix, block_tile, stage, shape, group,
                                                         first_tile, first_token, sums);
      }
    };
    if (matrix.offset == WeightOffset::kNone) {
      add.template operator()<true>();
    } else {
      add.template operator()<false>();
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
