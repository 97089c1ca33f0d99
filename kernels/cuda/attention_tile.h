// The work of a block of the attention: tiles of queries against tiles of keys with an online
// softmax (Dao et al., 2022), on the tensor cores.
//
// Queries and weights are split into two f16 numbers each, so that only the cache is in less than
// float32.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_TILE_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_TILE_H_

#include "kernels/cuda/attention_halves.h"
#include "kernels/cuda/attention_keys.h"
#include "kernels/cuda/attention_softmax.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr int kPad = 8;  // halves after a row, so that the rows of a matrix meet all banks
inline constexpr int kHalvesOfCopy = 8;

template <int kHeadDim, int kWarps, int kKeys>
struct Tile {
  static constexpr int kDim = kHeadDim;
  static constexpr int kRows = kWarps * kRowsOfWarp;
  static constexpr int kThreads = kWarps * kWarpThreads;
  static constexpr int kStride = kDim + kPad;
  uint16_t query_high[kRows][kStride];
  uint16_t query_low[kRows][kStride];
  uint16_t keys[2][kKeys][kStride];  // this tile and the next
  uint16_t values[2][kKeys][kStride];
};

// Each warp loads the rows that it multiplies.
template <typename T>
__device__ void LoadQueries(const AttentionWork& work, T* tile) {
  const AttentionArgs& args = work.args;
  const int dim = static_cast<int>(args.layer.head_dim);
  const float scale = args.softcap == 0 ? args.scale * kLog2E : args.scale;
  const int first_row = Warp() * kRowsOfWarp;
  const Row of_lane = RowOfTile(work, first_row + Lane() % kRowsOfWarp);
#pragma unroll 4
  for (int i = 0; i < kRowsOfWarp; ++i) {
    const int64_t token = Shuffle(of_lane.token, i);
    const int64_t head = Shuffle(of_lane.head, i);
    const float* query = args.query + (token < 0 ? 0 : token * args.query_stride + head * dim);
    float values[T::kDim / kWarpThreads];
#pragma unroll
    for (int j = 0; j < T::kDim / kWarpThreads; ++j) {
      const int column = j * kWarpThreads + Lane();
      values[j] = token >= 0 && column < dim ? query[column] * scale : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < T::kDim / kWarpThreads; ++j) {
      const int column = j * kWarpThreads + Lane();
      const uint16_t high = FloatToHalf(values[j]);
      const float rest = values[j] - HalfToFloat(high);
      tile->query_high[first_row + i][column] = high;
      tile->query_low[first_row + i][column] = rest == rest ? FloatToHalf(rest) : uint16_t{0};
    }
  }
}

// Starts copies of keys and values [first, first + kKeys), first a multiple of kKeys; zeros where
// the run sees none, since the cache may hold anything there. A thread has the same channels of
// every copy, so that a copy's address is a block's and a constant.
template <typename T, int kKeys>
__device__ void StartCopies(const AttentionArgs& args, const Run& run, int64_t first, int stage,
                            T* tile) {
  constexpr int kPieces = T::kDim / kHalvesOfCopy;
  constexpr int kKeysAtOnce = T::kThreads / kPieces;
  constexpr int kBlockKeys = static_cast<int>(kKvBlockTokens);
  static_assert(kKeys <= 2 * kBlockKeys && kKeys % kBlockKeys == 0);
  static_assert(kBlockKeys % kKeysAtOnce == 0);
  const int dim = static_cast<int>(args.layer.head_dim);
  const int first_of_thread = ThreadIndex() / kPieces;
  const int column = ThreadIndex() % kPieces * kHalvesOfCopy;
  const int matrix = kBlockKeys * dim;
  if (column < (dim + 15) / 16 * 16) {
    const uint16_t* from[kKeys / kBlockKeys];
#pragma unroll
    for (int i = 0; i < kKeys / kBlockKeys; ++i) {
      const int64_t key = first + i * kBlockKeys;
      const std::byte* block = args.layer.blocks;
      if (key < run.end_key && key + kBlockKeys > run.first_key) {
        block += run.blocks[key / kBlockKeys] * args.layer.block_bytes;
      }
      from[i] = reinterpret_cast<const uint16_t*>(block) + BlockY() * 2 * matrix +
                first_of_thread * dim + column;
    }
    // Of the tile, those that the run sees.
    const auto begin = static_cast<int>(run.first_key > first ? run.first_key - first : 0);
    const auto end = static_cast<int>(run.end_key - first < kKeys ? run.end_key - first : kKeys);
    if (dim % kHalvesOfCopy == 0) {
#pragma unroll
      for (int i = 0; i < kKeys; i += kKeysAtOnce) {
        const int key = i + first_of_thread;
        const bool seen = key >= begin && key < end && column < dim;
        const uint16_t* at = from[i / kBlockKeys] + i % kBlockKeys * dim;
        CopyAsync16(&tile->keys[stage][key][column], at, seen);
        CopyAsync16(&tile->values[stage][key][column], at + matrix, seen);
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < kKeys; i += kKeysAtOnce) {
        const int key = i + first_of_thread;
        const bool seen = key >= begin && key < end;
        const uint16_t* at =
            (i < kBlockKeys ? from[0] : from[kKeys / kBlockKeys - 1]) + i % kBlockKeys * dim;
#pragma unroll 1
        for (int j = 0; j < kHalvesOfCopy; ++j) {
          const bool valid = seen && column + j < dim;
          tile->keys[stage][key][column + j] = valid ? at[j] : uint16_t{0};
          tile->values[stage][key][column + j] = valid ? at[matrix + j] : uint16_t{0};
        }
      }
    }
  }
  CommitCopies();
}

// scores[n][i] of 8 keys each, in the logarithm to base 2.
template <typename T, int kKeys>
__device__ __forceinline__ void Scores(const AttentionArgs& args, const T* tile, int stage,
                                       float (&scores)[kKeys / 8][4]) {
  const int steps = (static_cast<int>(args.layer.head_dim) + 15) / 16;
  const int row = Warp() * kRowsOfWarp + Lane() % 16;
  for (int step = 0; step < steps; ++step) {
    const int column = step * 16 + Lane() / 16 * 8;
    uint32_t high[4];
    uint32_t low[4];
    LoadMatrices(high, &tile->query_high[row][column]);
    LoadMatrices(low, &tile->query_low[row][column]);
#pragma unroll
    for (int n = 0; n < kKeys / 16; ++n) {
      uint32_t b[4];  // keys 0..7 and channels 0..7, 8..15, then keys 8..15
      LoadMatrices(b, &tile->keys[stage][n * 16 + Lane() % 8 + Lane() / 16 * 8]
                                 [step * 16 + Lane() / 8 % 2 * 8]);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        MmaF16(scores[2 * n + j], low, b[2 * j], b[2 * j + 1]);
        MmaF16(scores[2 * n + j], high, b[2 * j], b[2 * j + 1]);
      }
    }
  }
}

// Adds the values by their weights; with kFiniteOnly zeros instead of those that are not finite.
template <bool kFiniteOnly, typename T, int kKeys>
__device__ __forceinline__ void AddValues(const AttentionArgs& args, const T* tile, int stage,
                                          const float (&weights)[kKeys / 8][4],
                                          float (&out)[T::kDim / 8][4]) {
  const int dim = static_cast<int>(args.layer.head_dim);
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    const float(&w0)[4] = weights[2 * step];
    const float(&w1)[4] = weights[2 * step + 1];
    const SplitPair p[4] = {Split(w0[0], w0[1]), Split(w0[2], w0[3]), Split(w1[0], w1[1]),
                            Split(w1[2], w1[3])};
    const uint32_t high[4] = {p[0].high, p[1].high, p[2].high, p[3].high};
    const uint32_t low[4] = {p[0].low, p[1].low, p[2].low, p[3].low};
#pragma unroll
    for (int n = 0; n < T::kDim / 16; ++n) {
      if (n * 16 >= dim) break;
      uint32_t b[4];  // channels 0..7 of keys 0..7, 8..15, then channels 8..15
      LoadMatricesTransposed(
          b, &tile->values[stage][step * 16 + Lane() % 16][n * 16 + Lane() / 16 * 8]);
      if constexpr (kFiniteOnly) {
        for (uint32_t& word : b) word = FiniteOrZero(word);
      }
      MmaF16(out[2 * n], low, b[0], b[1]);
      MmaF16(out[2 * n + 1], low, b[2], b[3]);
      MmaF16(out[2 * n], high, b[0], b[1]);
      MmaF16(out[2 * n + 1], high, b[2], b[3]);
    }
  }
}

// Whether a value of the tile is not finite; a warp's question. Each lane brings 8 channels of a
// key.
template <typename T, int kKeys>
__device__ __forceinline__ bool HasNotFinite(const AttentionArgs& args, const T* tile, int stage) {
  constexpr int kChannels = kWarpThreads / kKeys * kHalvesOfCopy;
  static_assert(kWarpThreads % kKeys == 0 && 16 % kChannels == 0);
  const int first = Lane() / kKeys * kHalvesOfCopy;
  uint32_t found = 0;
  for (int i = 0; i < static_cast<int>(args.layer.head_dim); i += kChannels) {
    uint32_t words[4];
    LoadMatrices(words, &tile->values[stage][Lane() % kKeys][i + first]);
    for (uint32_t word : words) found |= NotFinite(word);
  }
  return Ballot(found != 0) != 0;
}

// Adds what AddValues<true> left out to the rows that see it, whose results are not finite then,
// whatever the weights.
template <typename T, int kKeys, bool kTree>
__device__ void AddNotFinite(const AttentionArgs& args, const Sight& sight, int64_t first_key,
                             const T* tile, int stage, float (&out)[T::kDim / 8][4]) {
  const int dim = static_cast<int>(args.layer.head_dim);
  for (int key = 0; key < kKeys; ++key) {
    const bool sees[2] = {Sees<kTree>(sight.keys[0], first_key + key),
                          Sees<kTree>(sight.keys[1], first_key + key)};
#pragma unroll
    for (int n = 0; n < T::kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + Lane() % 4 * 2 + i;
        if (column >= dim) continue;
        const uint16_t value = tile->values[stage][key][column];
        if (NotFinite(value) == 0) continue;
        if (sees[0]) out[n][i] += HalfToFloat(value);
        if (sees[1]) out[n][2 + i] += HalfToFloat(value);
      }
    }
  }
}

// The values of a tile, where a row of the warp sees not all keys that others see: the weight 0 of
// a key must not meet a value that is not finite.
template <typename T, int kKeys, bool kTree>
__device__ __forceinline__ void AddSeenValues(const AttentionArgs& args, const Sight& sight,
                                              int64_t first_key, const T* tile, int stage,
                                              const float (&weights)[kKeys / 8][4],
                                              float (&out)[T::kDim / 8][4]) {
  if (!HasNotFinite<T, kKeys>(args, tile, stage)) {
    AddValues<false, T, kKeys>(args, tile, stage, weights, out);
    return;
  }
  AddValues<true, T, kKeys>(args, tile, stage, weights, out);
  AddNotFinite<T, kKeys, kTree>(args, sight, first_key, tile, stage, out);
}

// The results of the rows.
template <int kDim>
__device__ void WriteRows(const AttentionWork& work, Softmax softmax,
                          const float (&out)[kDim / 8][4]) {
  const AttentionArgs& args = work.args;
  const int64_t dim = args.layer.head_dim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = softmax.sum[half];
    sum += ShuffleXor(sum, 1);
    sum += ShuffleXor(sum, 2);
    const Row row = RowOfTile(work, Warp() * kRowsOfWarp + Lane() / 4 + 8 * half);
    if (row.token < 0) continue;
    float* to = args.out + row.token * args.out_stride + row.head * dim;
#pragma unroll
    for (int i = 0; i < kDim / 8 * 2; ++i) {
      const int64_t column = i / 2 * 8 + Lane() % 4 * 2 + i % 2;
      if (column < dim) to[column] = out[i / 2][2 * half + i % 2] / sum;
    }
  }
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_TILE_H_
