// Integer weights times 1 to 16 tokens: bound by reading the weights once. A block takes one
// tile; its warps take chunks of 128 channels in turn, each with copies of its next ones on their
// way. The products are exact integers, so any warp may make them; sums of floats are taken by one
// thread for each result, in the order of the channels.
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kStages = 4;  // chunks that a warp holds or has on their way
constexpr int kRows = static_cast<int>(kTileRows);

// What a warp says of one group of its chunk. Rows are padded so that the lanes that store products
// of different tokens meet different banks.
template <int kTokens>
struct GroupProducts {
  GroupScale scales[kRows];
  int32_t products[kTokens][kRows + 4];
};

// [of this round or the next][group of the round]. Where that is much memory, there is one round,
// and two barriers for each instead of one: blocks beside each other hide more than that costs.
template <int kTokens, int kGroups>
struct Exchange {
  static constexpr int kRounds = kTokens * kGroups <= 32 ? 2 : 1;
  GroupProducts<kTokens> groups[kRounds][kWarps * kGroups];
};

// The chunks of one tile.
struct Chunks {
  const std::byte* bytes;
  int chunk_bytes;
  int last, last_bytes;  // the last one, which may be short
  int end;
};

template <int kBits>
__device__ __forceinline__ void StartCopy(const Chunks& chunks, int chunk, std::byte* to) {
  if (chunk < chunks.end) {
    const std::byte* from = chunks.bytes + int64_t{chunk} * chunks.chunk_bytes + Lane() * 16;
    const int bytes = chunk == chunks.last ? chunks.last_bytes : chunks.chunk_bytes;
    constexpr int kMost = kChunkValueBytes<kBits> + kMostParameterBytes;
#pragma unroll
    for (int i = 0; i < kMost; i += kWarpThreads * 16) {
      if (i + Lane() * 16 < bytes) CopyAsync16(to + Lane() * 16 + i, from + i);
    }
  }
  CommitCopies();
}

// The products of one chunk, by one warp; x are the rows of activations that its lane reads. With
// kWhole all channels of the chunk are there, and nothing stands between the loads of its groups.
template <int kBits, int kGroupChannels, int kTokenTiles, bool kWhole>
__device__ __forceinline__ void MultiplyChunk(const IntMatrix& matrix, int x_channels,
                                              const std::byte* bytes, const std::byte* header,
                                              int chunk, const int8_t* const (&x)[kTokenTiles],
                                              GroupProducts<8 * kTokenTiles>* out) {
  using G = Groups<kGroupChannels>;
  int groups = G::kCount;
  int value_bytes = kChunkValueBytes<kBits>;
  const int first_channel = chunk * kChunkChannels;
  if constexpr (!kWhole) {
    const ChunkShape shape = ShapeOfChunk<kBits, kGroupChannels>(matrix, chunk);
    groups = shape.groups;
    value_bytes = shape.value_bytes;
  }
  int32_t sums[G::kCount][kTokenTiles][4] = {};
#pragma unroll
  for (int group = 0; group < G::kCount; ++group) {
#pragma unroll
    for (int i = 0; i < G::kSteps; ++i) {
      const int step = G::StepOf(group, i);
      const int channel = first_channel + step * kStepChannels;
      if (!kWhole && (group >= groups || channel >= x_channels)) break;
      uint32_t a[4];
      LoadWeights<kBits>(bytes, step, a);
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        auto b = *reinterpret_cast<const Words2*>(x[n] + channel);
        if (!G::IsMine(group)) b = {};
        MmaU8S8(sums[group][n], a, b.word[0], b.word[1]);
      }
    }
  }
  // A half of the warp has every other group's scales.
  constexpr int kOfLane = (G::kCount + 1) / 2;
  GroupScale scales[kOfLane] = {};
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int group = 2 * i + Lane() / kRows;
    if (group >= groups) continue;
    scales[i] = ScaleOfChunk<kBits, kGroupChannels>(matrix, header, bytes + value_bytes, groups,
                                                    group, Lane() % kRows);
  }
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int group = 2 * i + Lane() / kRows;
    if (group < groups) out[group].scales[Lane() % kRows] = scales[i];
  }
#pragma unroll
  for (int group = 0; group < G::kCount; ++group) {
    if (!kWhole && group >= groups) break;
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = n * 8 + Lane() % 4 * 2 + i % 2;
        out[group].products[token][Lane() / 4 + i / 2 * 8] = sums[group][n][i];
      }
    }
  }
}

// Adds `count` groups of a round to one result, in order: kMost of them, or fewer in the last
// round.
template <int kMost, int kTokens>
__device__ __forceinline__ float AddRound(const QuantizedActivations& x, bool has_minimum,
                                          const GroupProducts<kTokens>* groups, int count,
                                          int first_group, int token, int row, float sum) {
  const float* x_scales = x.scales + token * x.groups + first_group;
  const int32_t* x_sums = x.sums + token * x.groups + first_group;
  const auto add = [&](int i) {
    const GroupScale scale = groups[i].scales[row];
    sum = AddGroup(scale, has_minimum, groups[i].products[token][row], x_scales[i], x_sums[i], sum);
  };
  if (count >= kMost) {
#pragma unroll
    for (int i = 0; i < kMost; ++i) add(i);
  } else {
    for (int i = 0; i < count; ++i) add(i);
  }
  return sum;
}

// Four blocks to a multiprocessor: matrices of 4,096 to 8,192 rows are 256 to 512 blocks, which are
// all to be there at once.
template <int kBits, int kGroupChannels, int kTokenTiles>
__global__ void __launch_bounds__(kThreads, 4) MatmulFewKernel(IntMatmul args) {
  LetLaterWorkStart();
  constexpr int kTokens = 8 * kTokenTiles;
  constexpr int kGroups = Groups<kGroupChannels>::kCount;
  constexpr int kPerThread = kTokens * kRows / kThreads;  // results
  using E = Exchange<kTokens, kGroups>;
  auto* exchange = SharedMemory<E>();
  const BlockPlace place_of_block = PlaceOf(args, 1, static_cast<int>(BlockX()));
  const IntMatrix& matrix = args.matrices[place_of_block.matrix];
  const bool has_minimum = matrix.offset == WeightOffset::kMinimum;
  const std::byte* tile = matrix.tiles + int64_t{place_of_block.block} * matrix.tile_bytes;
  const int chunk_bytes = matrix.chunk_bytes;
  const Chunks chunks = {tile + matrix.header_bytes, chunk_bytes, matrix.num_chunks - 1,
                         matrix.last_chunk_bytes, matrix.chunk_end};
  std::byte* ring = reinterpret_cast<std::byte*>(exchange + 1) + Warp() * kStages * chunk_bytes;
  const int8_t* x[kTokenTiles];
#pragma unroll
  for (int n = 0; n < kTokenTiles; ++n) {
    // Of tokens that are not there nobody asks for the products: they are those of another one.
    const int token = n * 8 + Lane() / 4;
    x[n] = args.x.values + (token < args.tokens ? token : 0) * args.x.padded_cols + Lane() % 4 * 8;
  }
  const auto x_channels = static_cast<int>(args.x.padded_cols);
  const int whole_chunks =
      (matrix.padded_cols < x_channels ? matrix.padded_cols : x_channels) / kChunkChannels;
  const auto end_group = static_cast<int>(
      matrix.chunk_end * kGroups < args.x.groups ? matrix.chunk_end * kGroups : args.x.groups);
  // Few tokens leave adding up to one warp: not to the same one in all blocks.
  const auto turn = static_cast<int>((BlockX() + BlockX() / 128) % kWarps);
  const int place = (ThreadIndex() + turn * kWarpThreads) % kThreads;

  const int first_chunk = matrix.chunk_begin;
  for (int i = 0; i + 1 < kStages; ++i) {
    StartCopy<kBits>(chunks, first_chunk + Warp() + i * kWarps, ring + i * chunk_bytes);
  }
  WaitForEarlierWork();
  float sums[kPerThread] = {};
  int round = 0;
  for (int first = first_chunk; first < chunks.end; first += kWarps, ++round) {
    WaitCopies<kStages - 2>();
    SyncWarp();
    const int chunk = first + Warp();
    StartCopy<kBits>(chunks, chunk + (kStages - 1) * kWarps,
                     ring + (round + kStages - 1) % kStages * chunk_bytes);
    if (E::kRounds == 1) SyncThreads();  // all have added up the round before
    auto* groups = exchange->groups[round % E::kRounds];
    const std::byte* bytes = ring + round % kStages * chunk_bytes;
    auto* out = groups + Warp() * kGroups;
    if (chunk < whole_chunks && chunk < chunks.end) {
      MultiplyChunk<kBits, kGroupChannels, kTokenTiles, true>(matrix, x_channels, bytes, tile,
                                                              chunk, x, out);
    } else if (chunk < chunks.end) {
      MultiplyChunk<kBits, kGroupChannels, kTokenTiles, false>(matrix, x_channels, bytes, tile,
                                                               chunk, x, out);
    }
    SyncThreads();
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int token = place / kRows + i * (kThreads / kRows);
      if (token >= args.tokens) continue;
      sums[i] = AddRound<kWarps * kGroups, kTokens>(args.x, has_minimum, groups,
                                                    end_group - first * kGroups, first * kGroups,
                                                    token, place % kRows, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    WriteResult(matrix, args.tokens, int64_t{place_of_block.block} * kRows + place % kRows,
                place / kRows + i * (kThreads / kRows), sums[i]);
  }
}

template <int kBits, int kGroupChannels, int kTokenTiles>
void LaunchFew(const IntMatmul& args, CUstream_st* stream) {
  const size_t shared_bytes = sizeof(Exchange<8 * kTokenTiles, Groups<kGroupChannels>::kCount>) +
                              static_cast<size_t>(kWarps * kStages * MostChunkBytes(args));
  Launch<MatmulFewKernel<kBits, kGroupChannels, kTokenTiles>>({BlocksOf(args, 1)}, kThreads,
                                                              shared_bytes, stream, args);
}

template <int kBits, int kGroupChannels>
void ChooseTokens(const IntMatmul& args, CUstream_st* stream) {
  if constexpr (kGroupChannels >= kStepChannels) {
    if (args.tokens > 8) return LaunchFew<kBits, kGroupChannels, 2>(args, stream);
  }
  LaunchFew<kBits, kGroupChannels, 1>(args, stream);
}

template <int kBits>
void ChooseGroup(const IntMatmul& args, CUstream_st* stream) {
  if (args.group_size == 32) return ChooseTokens<kBits, 32>(args, stream);
  if (args.group_size == 64) return ChooseTokens<kBits, 64>(args, stream);
  ChooseTokens<kBits, 128>(args, stream);
}

}  // namespace

void MatmulFewTokens(const IntMatmul& args, CUstream_st* stream) {
  if (args.bits == 4) return ChooseGroup<4>(args, stream);
  if (args.bits == 5) return ChooseTokens<5, 32>(args, stream);
  if (args.bits == 6) return ChooseTokens<6, 16>(args, stream);
  if (args.group_size == 16) return ChooseTokens<8, 16>(args, stream);
  ChooseGroup<8>(args, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
