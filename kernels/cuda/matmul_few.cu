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

// What a warp says of one group of its chunk.
template <int kTokens>
struct GroupProducts {
  GroupScale scales[kRows];
  int32_t products[kTokens][kRows];
};

// [of this round or the next][warp][group]
template <int kTokens, int kGroups>
struct Exchange {
  GroupProducts<kTokens> groups[2][kWarps][kGroups];
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

// The products of one chunk, by one warp.
template <int kBits, int kGroupChannels, int kTokenTiles>
__device__ void MultiplyChunk(const IntMatmul& args, const std::byte* bytes,
                              const std::byte* header, int64_t chunk,
                              GroupProducts<8 * kTokenTiles>* out) {
  const ChunkShape shape = ShapeOfChunk(args.layout, chunk);
  const bool whole_rows = args.layout.whole_rows;
  const std::byte* parameters = whole_rows ? header : bytes + shape.value_bytes;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
#pragma unroll
  for (int group = 0; group < Groups<kGroupChannels>::kCount; ++group) {
    if (group >= shape.groups) break;
    int32_t sums[kTokenTiles][4] = {};
#pragma unroll
    for (int i = 0; i < Groups<kGroupChannels>::kSteps; ++i) {
      const int step = Groups<kGroupChannels>::StepOf(group, i);
      const int64_t channel = chunk * kGpuChunkChannels + step * kStepChannels;
      if (channel >= args.x.padded_cols) break;
      uint32_t a[4];
      LoadWeights<kBits>(bytes, step, a);
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n) {
        const int64_t token = n * 8 + g;
        Words2 b = {};
        if (token < args.tokens && Groups<kGroupChannels>::IsMine(group)) {
          b = *reinterpret_cast<const Words2*>(args.x.values + token * args.x.padded_cols +
                                               channel + 8 * t);
        }
        MmaU8S8(sums[n], a, b.word[0], b.word[1]);
      }
    }
    if (Lane() < kRows) {
      out[group].scales[Lane()] = LoadScale(args.layout, parameters, whole_rows ? 1 : shape.groups,
                                            whole_rows ? 0 : group, Lane());
    }
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        out[group].products[n * 8 + 2 * t + i % 2][g + i / 2 * 8] = sums[n][i];
      }
    }
  }
}

template <int kBits, int kGroupChannels, int kTokenTiles>
__global__ void __launch_bounds__(kThreads, 1) MatmulFewKernel(IntMatmul args) {
  constexpr int kTokens = 8 * kTokenTiles;
  constexpr int kGroups = Groups<kGroupChannels>::kCount;
  constexpr int kPerThread = kTokens * kRows / kThreads;  // results
  auto* exchange = SharedMemory<Exchange<kTokens, kGroups>>();
  std::byte* ring =
      reinterpret_cast<std::byte*>(exchange + 1) + Warp() * kStages * args.layout.chunk_bytes;
  const std::byte* tile = args.tiles + BlockX() * args.layout.tile_bytes;
  const bool has_minimum = args.layout.offset == WeightOffset::kMinimum;
  const int64_t first = args.chunk_begin + Warp();

  for (int i = 0; i + 1 < kStages; ++i) {
    StartCopy(args, tile, first + i * kWarps, ring + i * args.layout.chunk_bytes);
  }
  float sums[kPerThread] = {};
  for (int64_t round = 0; args.chunk_begin + round * kWarps < args.chunk_end; ++round) {
    WaitCopies<kStages - 2>();
    SyncWarp();
    const int64_t next = round + kStages - 1;
    StartCopy(args, tile, first + next * kWarps, ring + next % kStages * args.layout.chunk_bytes);
    const int64_t chunk = first + round * kWarps;
    auto& groups = exchange->groups[round % 2];
    if (chunk < args.chunk_end) {
      MultiplyChunk<kBits, kGroupChannels, kTokenTiles>(
          args, ring + round % kStages * args.layout.chunk_bytes, tile, chunk, groups[Warp()]);
    }
    SyncThreads();
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int row = ThreadIndex() % kRows;
      const int token = ThreadIndex() / kRows + i * (kThreads / kRows);
      if (token >= args.tokens) continue;
      for (int warp = 0; warp < kWarps; ++warp) {
        const int64_t first_group = (args.chunk_begin + round * kWarps + warp) * kGroups;
        for (int group = 0; group < kGroups; ++group) {
          if (first_group >= args.chunk_end * kGroups || first_group + group >= args.x.groups)
            break;
          const GroupProducts<kTokens>& products = groups[warp][group];
          const int64_t at = token * args.x.groups + first_group + group;
          sums[i] = AddGroup(products.scales[row], has_minimum, products.products[token][row],
                             args.x.scales[at], args.x.sums[at], sums[i]);
        }
      }
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
