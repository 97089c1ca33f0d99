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

__device__ void StartCopy(const IntMatmul& args, const std::byte* tile, int64_t chunk,
                          std::byte* to) {
  if (chunk < args.chunk_end) {
    const int64_t bytes = ShapeOfChunk(args.layout, chunk).size_bytes;
    const std::byte* from = tile + args.layout.header_bytes + chunk * args.layout.chunk_bytes;
    for (int64_t i = Lane() * 16; i < bytes; i += kWarpThreads * 16) CopyAsync16(to + i, from + i);
  }
  CommitCopies();
}

// The products of one chunk, by one warp. With kWhole all its channels are there, and nothing stands
// between the loads of its groups.
template <int kBits, int kGroupChannels, int kTokenTiles, bool kWhole>
__device__ __forceinline__ void MultiplyChunk(const IntMatmul& args, const std::byte* bytes,
                                              const std::byte* header, int64_t chunk,
                                              const ChunkShape& shape,
                                              GroupProducts<8 * kTokenTiles>* out) {
  using G = Groups<kGroupChannels>;
  const int groups = kWhole ? G::kCount : shape.groups;
  const auto channels = static_cast<int>(args.x.padded_cols - chunk * kGpuChunkChannels);
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  const int8_t* x[kTokenTiles];
#pragma unroll
  for (int n = 0; n < kTokenTiles; ++n) {
    // Of tokens that are not there nobody asks for the products: they are those of another one.
    const int64_t token = n * 8 + g < args.tokens ? n * 8 + g : 0;
    x[n] = args.x.values + token * args.x.padded_cols + chunk * kGpuChunkChannels + 8 * t;
  }
  int32_t sums[G::kCount][kTokenTiles][4] = {};
#pragma unroll
  for (int group = 0; group < G::kCount; ++group) {
#pragma unroll
    for (int i = 0; i < G::kSteps; ++i) {
      const int step = G::StepOf(group, i);
      if (!kWhole && (group >= groups || step * kStepChannels >= channels)) break;
      uint32_t a[4];
      LoadWeights<kBits>(bytes, step, a);
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        auto b = *reinterpret_cast<const Words2*>(x[n] + step * kStepChannels);
        if (!G::IsMine(group)) b = {};
        MmaU8S8(sums[group][n], a, b.word[0], b.word[1]);
      }
    }
  }
  // A half of the warp has every other group's scales.
  const bool whole_rows = args.layout.whole_rows;
  GroupScale scales[(G::kCount + 1) / 2] = {};
#pragma unroll
  for (int i = 0; i < (G::kCount + 1) / 2; ++i) {
    const int group = 2 * i + Lane() / kRows;
    if (group >= groups) continue;
    scales[i] =
        LoadScale(args.layout, whole_rows ? header : bytes + shape.value_bytes,
                  whole_rows ? 1 : shape.groups, whole_rows ? 0 : group, Lane() % kRows);
  }
#pragma unroll
  for (int i = 0; i < (G::kCount + 1) / 2; ++i) {
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
        out[group].products[n * 8 + 2 * t + i % 2][g + i / 2 * 8] = sums[group][n][i];
      }
    }
  }
}

// Adds `count` groups of a round to one result, in order: kMost of them, or fewer in the last round.
template <int kMost, int kTokens>
__device__ __forceinline__ float AddRound(const IntMatmul& args,
                                          const GroupProducts<kTokens>* groups, int64_t count,
                                          int64_t first_group, int token, int row, float sum) {
  const bool has_minimum = args.layout.offset == WeightOffset::kMinimum;
  const float* x_scales = args.x.scales + token * args.x.groups + first_group;
  const int32_t* x_sums = args.x.sums + token * args.x.groups + first_group;
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
  constexpr int kTokens = 8 * kTokenTiles;
  constexpr int kGroups = Groups<kGroupChannels>::kCount;
  constexpr int kPerThread = kTokens * kRows / kThreads;  // results
  using E = Exchange<kTokens, kGroups>;
  auto* exchange = SharedMemory<E>();
  std::byte* ring =
      reinterpret_cast<std::byte*>(exchange + 1) + Warp() * kStages * args.layout.chunk_bytes;
  const std::byte* tile = args.tiles + BlockX() * args.layout.tile_bytes;
  const int64_t first = args.chunk_begin + Warp();
  int64_t end_group = args.chunk_end * kGroups;
  if (end_group > args.x.groups) end_group = args.x.groups;

  for (int i = 0; i + 1 < kStages; ++i) {
    StartCopy(args, tile, first + i * kWarps, ring + i * args.layout.chunk_bytes);
  }
  float sums[kPerThread] = {};
  for (int64_t round = 0; args.chunk_begin + round * kWarps < args.chunk_end; ++round) {
    WaitCopies<kStages - 2>();
    SyncWarp();
    const int64_t next = round + kStages - 1;
    StartCopy(args, tile, first + next * kWarps, ring + next % kStages * args.layout.chunk_bytes);
    if (E::kRounds == 1) SyncThreads();  // all have added up the round before
    const int64_t chunk = first + round * kWarps;
    auto* groups = exchange->groups[round % E::kRounds];
    if (chunk < args.chunk_end) {
      const std::byte* bytes = ring + round % kStages * args.layout.chunk_bytes;
      const ChunkShape shape = ShapeOfChunk(args.layout, chunk);
      auto* out = groups + Warp() * kGroups;
      if (shape.channels == kGpuChunkChannels &&
          (chunk + 1) * kGpuChunkChannels <= args.x.padded_cols) {
        MultiplyChunk<kBits, kGroupChannels, kTokenTiles, true>(args, bytes, tile, chunk, shape,
                                                                out);
      } else {
        MultiplyChunk<kBits, kGroupChannels, kTokenTiles, false>(args, bytes, tile, chunk, shape,
                                                                 out);
      }
    }
    SyncThreads();
    const int64_t first_group = (args.chunk_begin + round * kWarps) * kGroups;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int row = ThreadIndex() % kRows;
      const int token = ThreadIndex() / kRows + i * (kThreads / kRows);
      if (token >= args.tokens) continue;
      sums[i] = AddRound<kWarps * kGroups, kTokens>(args, groups, end_group - first_group,
                                                    first_group, token, row, sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    WriteResult(args, BlockX() * kRows + ThreadIndex() % kRows,
                ThreadIndex() / kRows + i * (kThreads / kRows), sums[i]);
  }
}

template <int kBits, int kGroupChannels, int kTokenTiles>
void LaunchFew(const IntMatmul& args, CUstream_st* stream) {
  const size_t shared_bytes = sizeof(Exchange<8 * kTokenTiles, Groups<kGroupChannels>::kCount>) +
                              static_cast<size_t>(kWarps * kStages * args.layout.chunk_bytes);
  Launch<MatmulFewKernel<kBits, kGroupChannels, kTokenTiles>>({args.num_tiles}, kThreads,
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
  if (args.layout.group_size == 32) return ChooseTokens<kBits, 32>(args, stream);
  if (args.layout.group_size == 64) return ChooseTokens<kBits, 64>(args, stream);
  ChooseTokens<kBits, 128>(args, stream);
}

}  // namespace

void MatmulFewTokens(const IntMatmul& args, CUstream_st* stream) {
  if (args.layout.bits == 4) return ChooseGroup<4>(args, stream);
  if (args.layout.bits == 5) return ChooseTokens<5, 32>(args, stream);
  if (args.layout.bits == 6) return ChooseTokens<6, 16>(args, stream);
  if (args.layout.group_size == 16) return ChooseTokens<8, 16>(args, stream);
  ChooseGroup<8>(args, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
