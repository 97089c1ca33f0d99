// Attention over the paged cache. A tile's rows are the query heads of one KV head for one or more
// tokens. Many tokens of one sequence: a block of threads walks over all keys. Few tokens: each
// block takes one partition of the keys (Dao et al., Flash-Decoding, 2023), and a second kernel
// puts the partitions together in their order. Draft trees have kernels of their own, so that the
// others know no masks.
#include <algorithm>
#include <cmath>

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
    const Run run = NextRun<kTree>(work, token, end);
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

constexpr int kCombineThreads = 128;
constexpr int kColumnsOfThread = static_cast<int>(kGpuMostHeadDim) / kCombineThreads;

struct CombineShared {
  float largest[kCombineThreads / kWarpThreads];
  float weights[kCombineThreads];
  float sums[kCombineThreads];
};

// One block for each token and query head. The weights of the partitions are made once, so that a
// thread's loads of its columns wait for nothing.
__global__ void __launch_bounds__(kCombineThreads) CombineKernel(AttentionWork work) {
  TakeTurn();
  const AttentionArgs& args = work.args;
  const int64_t dim = args.layer.head_dim;
  const int64_t token = work.first_token + BlockX();
  const int64_t item = token * args.layer.num_kv_heads + BlockY() / work.group;
  if (item < args.item_begin || item >= args.item_end) return;
  const int64_t stride = dim + 2;
  const float* parts = args.scratch + (BlockX() * args.num_heads + BlockY()) * work.splits * stride;
  auto* shared = SharedMemory<CombineShared>();
  float largest = FloatFromBits(0xff800000u);
  for (int64_t i = ThreadIndex(); i < work.splits; i += kCombineThreads) {
    largest = fmaxf(largest, parts[i * stride + dim]);
  }
  for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) {
    largest = fmaxf(largest, ShuffleXor(largest, mask));
  }
  if (Lane() == 0) shared->largest[Warp()] = largest;
  SyncThreads();
  for (float of_warp : shared->largest) largest = fmaxf(largest, of_warp);
  float sum = 0;
  float values[kColumnsOfThread] = {};
  for (int64_t first = 0; first < work.splits; first += kCombineThreads) {
    const int64_t left = work.splits - first;
    const int count = left < kCombineThreads ? static_cast<int>(left) : kCombineThreads;
    SyncThreads();  // the weights before are used
    if (ThreadIndex() < count) {
      const float* part = parts + (first + ThreadIndex()) * stride + dim;
      shared->weights[ThreadIndex()] = exp2f(part[0] - largest);
      shared->sums[ThreadIndex()] = part[1];
    }
    SyncThreads();
#pragma unroll 4
    for (int i = 0; i < count; ++i) {
      const float* part = parts + (first + i) * stride;
      sum = fmaf(shared->sums[i], shared->weights[i], sum);
#pragma unroll
      for (int j = 0; j < kColumnsOfThread; ++j) {
        const int column = ThreadIndex() + j * kCombineThreads;
        if (column < dim) values[j] = fmaf(part[column], shared->weights[i], values[j]);
      }
    }
  }
  float* out = args.out + token * args.out_stride + BlockY() * dim;
  for (int j = 0; j < kColumnsOfThread; ++j) {
    const int column = ThreadIndex() + j * kCombineThreads;
    if (column < dim) out[column] = values[j] / sum;
  }
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
      {token_tiles * work.head_tiles, work.args.layer.num_kv_heads, work.splits}, T::kThreads,
      sizeof(T), stream, work);
  if (work.splits > 1) {
    Launch<CombineKernel>({tokens, work.args.num_heads}, kCombineThreads, sizeof(CombineShared),
                          stream, work);
  }
}

template <int kDim, int kWarps, int kKeys>
void LaunchTiles(const AttentionWork& work, CUstream_st* stream) {
  if (work.args.tree_begin == nullptr) {
    LaunchTilesOf<kDim, kWarps, kKeys, false>(work, stream);
  } else {
    LaunchTilesOf<kDim, kWarps, kKeys, true>(work, stream);
  }
}

// Each token's keys in partitions, as many tokens at once as the scratch memory holds.
void AttendInPartitions(AttentionWork work, CUstream_st* stream) {
  const AttentionArgs& args = work.args;
  const int64_t dim = args.layer.head_dim;
  work.keys_of_split = kGpuAttentionPartition;
  work.splits = std::max<int64_t>(
      1, (args.longest_length + kGpuAttentionPartition - 1) / kGpuAttentionPartition);
  const int64_t end = work.end_token;
  const int64_t one = GpuAttentionScratchOfToken(args.num_heads, dim, args.longest_length);
  const int64_t at_once =
      one == 0 ? end - work.first_token : std::max<int64_t>(1, args.scratch_size / one);
  for (; work.first_token < end; work.first_token += at_once) {
    work.end_token = std::min(end, work.first_token + at_once);
    if (dim <= 64) {
      LaunchTiles<64, 1, 32>(work, stream);
    } else if (dim <= 128) {
      LaunchTiles<128, 1, 32>(work, stream);
    } else {
      LaunchTiles<256, 1, 16>(work, stream);
    }
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
  if (args.longest_run <= kGpuMostSplitRun) return AttendInPartitions(work, stream);
  work.keys_of_split = std::max<int64_t>(1, args.longest_length);
  work.splits = 1;
  if (args.layer.head_dim <= 64) return LaunchTiles<64, 4, 32>(work, stream);
  if (args.layer.head_dim <= 128) return LaunchTiles<128, 4, 32>(work, stream);
  LaunchTiles<256, 2, 16>(work, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
