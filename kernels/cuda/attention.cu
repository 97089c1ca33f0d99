// Attention over the paged cache. A tile's rows are the query heads of one KV head for one or more
// tokens. Many tokens of one sequence: a block of threads walks over all keys, here. Few tokens:
// attention_decode.cu. Draft trees have kernels of their own, so that the others know no masks.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

template <int kDim, int kWarps, int kKeys, bool kTree>
__global__ void __launch_bounds__(kWarps* kWarpThreads) AttentionKernel(AttentionWork work) {
  TakeTurn();
  using T = Tile<kDim, kWarps, kKeys>;
  auto* tile = SharedMemory<T>();
  const AttentionArgs& args = work.args;
  const float minus_infinity = FloatFromBits(0xff800000u);
  Softmax softmax = {{minus_infinity, minus_infinity}, {0, 0}};
  float out[kDim / 8][4] = {};
  LoadQueries(work, tile);

  const int64_t first = work.first_token +
                        int64_t{static_cast<int>(BlockX()) / work.head_tiles} * work.tokens_of_tile;
  int64_t end = first + work.tokens_of_tile;
  if (end > work.end_token) end = work.end_token;
  for (int64_t token = first; token < end;) {
    const Run run = NextRun<kTree>(args, token, end);
    token = run.end;
    const int64_t first_key = run.first_key / kKeys * kKeys;
    const Sight sight = SightOfRows<kTree>(work, run);
    SyncThreads();  // the stages may still be read for the run before
    if (first_key < run.end_key) StartCopies<T, kKeys>(args, run, first_key, 0, tile);
    for (int64_t key = first_key; key < run.end_key; key += kKeys) {
      const int stage = static_cast<int>(key / kKeys - first_key / kKeys) % 2;
      WaitCopies<0>();
      SyncThreads();  // this stage is there, and all are done with the other
      if (key + kKeys < run.end_key) {
        StartCopies<T, kKeys>(args, run, key + kKeys, 1 - stage, tile);
      }
      float scores[kKeys / 8][4] = {};
      Scores<T, kKeys>(args, tile, stage, scores);
      float correction[2];
      Weigh<kKeys, kTree>(args, sight, key, scores, &softmax, correction);
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[n][i] *= correction[i / 2];
      }
      // Nearly always all rows see the same of a tile: one token's, or those of a prompt before it.
      if (Ballot(MissesKeys<kTree>(sight, run, key, key + kKeys)) == 0) {
        AddValues<false, T, kKeys>(args, tile, stage, scores, out);
      } else {
        AddSeenValues<T, kKeys, kTree>(args, sight, key, tile, stage, scores, out);
      }
    }
  }
  WriteRows<kDim>(work, softmax, out);
}

template <int kDim, int kWarps, int kKeys, bool kTree>
void LaunchTilesOf(AttentionWork work, CUstream_st* stream) {
  using T = Tile<kDim, kWarps, kKeys>;
  work.heads_of_tile = std::min(work.group, T::kRows);
  // A longest run of 0 is one of 1.
  work.tokens_of_tile = static_cast<int>(
      std::clamp<int64_t>(work.args.longest_run, 1, T::kRows / work.heads_of_tile));
  work.head_tiles = (work.group + work.heads_of_tile - 1) / work.heads_of_tile;
  const int64_t tokens = work.end_token - work.first_token;
  const int64_t token_tiles = (tokens + work.tokens_of_tile - 1) / work.tokens_of_tile;
  Launch<AttentionKernel<kDim, kWarps, kKeys, kTree>>(
      {token_tiles * work.head_tiles, work.args.layer.num_kv_heads}, T::kThreads, sizeof(T), stream,
      work);
}

template <int kDim, int kWarps, int kKeys>
void LaunchTiles(const AttentionWork& work, CUstream_st* stream) {
  if (work.args.tree_begin == nullptr) {
    LaunchTilesOf<kDim, kWarps, kKeys, false>(work, stream);
  } else {
    LaunchTilesOf<kDim, kWarps, kKeys, true>(work, stream);
  }
}

}  // namespace

void Attention(const AttentionArgs& args, CUstream_st* stream) {
  if (args.item_begin >= args.item_end) return;
  const int64_t kv_heads = args.layer.num_kv_heads;
  AttentionWork work = {};
  work.args = args;
  work.group = static_cast<int>(args.num_heads / kv_heads);
  work.first_token = args.item_begin / kv_heads;
  work.end_token = (args.item_end + kv_heads - 1) / kv_heads;
  work.splits = 1;
  // Nobody's model has more heads than counters.
  if (args.longest_run <= kGpuMostSplitRun && args.num_heads <= kGpuAttentionCounters) {
    return AttendInPartitions(work, stream);
  }
  if (args.layer.head_dim <= 64) return LaunchTiles<64, 4, 32>(work, stream);
  if (args.layer.head_dim <= 128) return LaunchTiles<128, 4, 32>(work, stream);
  LaunchTiles<256, 2, 16>(work, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
