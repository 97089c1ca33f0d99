// What a block of the attention does with its partition's result, and the last block of a run with
// those of all partitions: so that no second launch is needed. In the order of the partitions,
// whichever block is the last.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_COMBINE_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_COMBINE_H_

#include <cmath>

#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/intrinsics.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

struct alignas(16) Float4 {
  float values[4];
};
struct PartStats {
  float largest;  // score
  float sum;      // of weights
};

// The results of partitions in the scratch memory behind the counters, [tokens, heads, splits, dim
// in fours], and behind them their statistics, [tokens, heads, splits].
struct Parts {
  Float4* values;
  PartStats* stats;
  int quads;  // of a head
};
__device__ __forceinline__ Parts PartsOf(const AttentionWork& work) {
  const AttentionArgs& args = work.args;
  Parts parts = {};
  parts.quads = static_cast<int>(args.layer.head_dim + 3) / 4;
  parts.values = reinterpret_cast<Float4*>(args.scratch + kGpuAttentionCounters);
  const int64_t count = (work.end_token - work.first_token) * args.num_heads * work.splits;
  parts.stats = reinterpret_cast<PartStats*>(parts.values + count * parts.quads);
  return parts;
}
__device__ __forceinline__ int64_t FirstPartOf(const AttentionWork& work, const Row& row) {
  return ((row.token - work.first_token) * work.args.num_heads + row.head) * work.splits;
}

// Partitions that hold keys [first, end).
__device__ __forceinline__ int FirstSplit(int64_t first) {
  return static_cast<int>(first / kPartition);
}
__device__ __forceinline__ int EndSplit(int64_t end) {
  return static_cast<int>((end + kPartition - 1) / kPartition);
}

// The largest score of the block's partition.
template <typename D>
__device__ __forceinline__ float LargestOf(int query, const typename D::Shared* shared) {
  float largest = shared->largest[0][query];
#pragma unroll
  for (int warp = 1; warp < kDecodeWarps; ++warp) {
    largest = fmaxf(largest, shared->largest[warp][query]);
  }
  return largest;
}

// Adds up the warps' results, and writes them: to `out` if this is the run's only partition.
template <typename D>
__device__ __forceinline__ void WritePart(const AttentionWork& work, bool only,
                                          typename D::Shared* shared) {
  const AttentionArgs& args = work.args;
  const int dim = static_cast<int>(args.layer.head_dim);
  Parts parts = {};
  if (!only) parts = PartsOf(work);  // else there may be no scratch memory
#pragma unroll 1
  for (int i = ThreadIndex(); i < D::kQueries * D::kDim; i += kDecodeThreads) {
    const int query = i / D::kDim;
    const int channel = i % D::kDim;
    const Row row = shared->rows[query];
    if (row.token < 0 || channel >= dim) continue;
    float value = 0;
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kDecodeWarps; ++warp) {
      float of_warp = shared->warps[warp].results[query][channel];
      if constexpr (D::kPacked) of_warp += shared->warps[warp].results[query + 4][channel];
      value += of_warp;
      sum += shared->sums[warp][query];
    }
    if (only) {
      args.out[row.token * args.out_stride + row.head * dim + channel] = value / sum;
      continue;
    }
    const int64_t part = shared->parts[query] + BlockZ();
    parts.values[part * parts.quads + channel / 4].values[channel % 4] = value;
    if (channel == 0) parts.stats[part] = {LargestOf<D>(query, shared), sum};
  }
}

// Counts this block as one that wrote its part; true for the last one of `count`, which sees what
// the others wrote.
template <typename D>
__device__ __forceinline__ bool IsLastOfRun(int* counter, int count, typename D::Shared* shared) {
  ThreadFence();
  SyncThreads();
  if (ThreadIndex() == 0) {
    const bool last = AtomicAdd(counter, 1) == count - 1;
    if (last) *counter = 0;  // nobody else will ask
    shared->is_last = last ? 1 : 0;
  }
  SyncThreads();
  if (shared->is_last == 0) return false;
  ThreadFence();
  return true;
}

// Each row's largest score and sum of weights over all of its partitions, to those of warp 0.
template <typename D>
__device__ __forceinline__ void CombineStats(const AttentionWork& work,
                                             typename D::Shared* shared) {
  const Parts parts = PartsOf(work);
  for (int query = Warp(); query < D::kQueries; query += kDecodeWarps) {
    if (shared->rows[query].token < 0) continue;
    const PartStats* stats = parts.stats + shared->parts[query];
    const int first = shared->first_split[query] + Lane();
    const int end = shared->end_split[query];
    float largest = FloatFromBits(0xff800000u);
    for (int i = first; i < end; i += kWarpThreads) largest = fmaxf(largest, stats[i].largest);
#pragma unroll
    for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) {
      largest = fmaxf(largest, ShuffleXor(largest, mask));
    }
    float sum = 0;
    for (int i = first; i < end; i += kWarpThreads) {
      sum = fmaf(stats[i].sum, exp2f(stats[i].largest - largest), sum);
    }
#pragma unroll
    for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
    if (Lane() == 0) {
      shared->largest[0][query] = largest;
      shared->sums[0][query] = sum;
    }
  }
}

inline constexpr int kRowsAtOnce = 2;

// Adds four channels of a chain's partitions for rows `query` and the next; no condition stands
// between the loads, so that all are on their way at once: what a row has no part of is another
// one's, without weight.
template <typename D>
__device__ __forceinline__ void AddParts(const Parts& parts, int begin, int end, int query,
                                         int quad, const typename D::Shared& shared,
                                         float (&sums)[kRowsAtOnce][4]) {
  constexpr int kAtOnce = 4;
  const bool is_first_row = shared.rows[query].token >= 0;
  if (!is_first_row && shared.rows[query + 1].token < 0) return;
  if (quad >= parts.quads) return;
#pragma unroll 1
  for (int split = begin; split < end; split += kAtOnce * D::kChains) {
    Float4 values[kAtOnce][kRowsAtOnce];
    float largest[kAtOnce][kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce * kRowsAtOnce; ++i) {
      const int own = query + i % kRowsAtOnce;
      const int row = shared.rows[own].token >= 0 ? own : is_first_row ? query : query + 1;
      const int of_row = split + i / kRowsAtOnce * D::kChains;
      const bool there = of_row >= shared.first_split[row] && of_row < shared.end_split[row];
      const int64_t part = shared.parts[row] + (there ? of_row : shared.first_split[row]);
      values[i / kRowsAtOnce][i % kRowsAtOnce] = parts.values[part * parts.quads + quad];
      largest[i / kRowsAtOnce][i % kRowsAtOnce] = parts.stats[part].largest;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce * kRowsAtOnce; ++i) {
      const int row = query + i % kRowsAtOnce;
      const int of_row = split + i / kRowsAtOnce * D::kChains;
      const bool there = of_row >= shared.first_split[row] && of_row < shared.end_split[row];
      const float weight =
          exp2f(largest[i / kRowsAtOnce][i % kRowsAtOnce] - shared.largest[0][row]);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float& sum = sums[i % kRowsAtOnce][j];
        const float value = values[i / kRowsAtOnce][i % kRowsAtOnce].values[j];
        sum = there ? fmaf(value, weight, sum) : sum;
      }
    }
  }
}

// The results of a run's rows. Its partitions are added in kChains chains, by their index, and the
// chains in their order; `first` and `end` are those of the run.
template <typename D>
__device__ __forceinline__ void CombineParts(const AttentionWork& work, int first, int end,
                                             typename D::Shared* shared) {
  const AttentionArgs& args = work.args;
  const int dim = static_cast<int>(args.layer.head_dim);
  const Parts parts = PartsOf(work);
  CombineStats<D>(work, shared);
  SyncThreads();
  const int chain = ThreadIndex() / (D::kDim / 4);
  const int quad = ThreadIndex() % (D::kDim / 4);
#pragma unroll 1
  for (int query = 0; query < D::kQueries; query += kRowsAtOnce) {
    float sums[kRowsAtOnce][4] = {};
    AddParts<D>(parts, first / D::kChains * D::kChains + chain, end, query, quad, *shared, sums);
#pragma unroll
    for (int i = 0; i < kRowsAtOnce * 4; ++i) {
      shared->chains[chain][query + i / 4][quad * 4 + i % 4] = sums[i / 4][i % 4];
    }
  }
  SyncThreads();
  for (int i = ThreadIndex(); i < D::kQueries * D::kDim; i += kDecodeThreads) {
    const int query = i / D::kDim;
    const int channel = i % D::kDim;
    const Row row = shared->rows[query];
    if (row.token < 0 || channel >= dim) continue;
    float value = 0;
#pragma unroll
    for (const auto& of_chain : shared->chains) value += of_chain[query][channel];
    args.out[row.token * args.out_stride + row.head * dim + channel] =
        value / shared->sums[0][query];
  }
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_COMBINE_H_
