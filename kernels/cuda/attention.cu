// Attention over the paged cache: tiles of queries against tiles of keys with an online softmax
// (Dao et al., 2022), on the tensor cores. A tile's rows are the query heads of one KV head for one
// or more tokens. Many tokens of one sequence: a block of threads walks over all keys. Few tokens:
// each block takes one partition of the keys (Dao et al., Flash-Decoding, 2023), and a second
// kernel puts the partitions together in their order.
//
// Queries and weights are split into two f16 numbers each, so that only the cache is in less than
// float32. Draft trees have kernels of their own, so that the others know no masks.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kRowsOfWarp = 16;
constexpr int kPad = 8;  // halves after a row, so that the rows of a matrix meet all banks
constexpr int kHalvesOfCopy = 8;

struct Work {
  AttentionArgs args;
  int64_t group;          // query heads of one KV head
  int64_t heads_of_tile;  // rows of a tile are tokens x these
  int64_t tokens_of_tile;
  int64_t head_tiles;  // tiles that the heads of one KV head take
  int64_t first_token, end_token;
  int64_t keys_of_split;
  int64_t splits;
};

template <int kDim, int kWarps, int kKeys>
struct Tile {
  static constexpr int kRows = kWarps * kRowsOfWarp;
  static constexpr int kThreads = kWarps * kWarpThreads;
  static constexpr int kStride = kDim + kPad;
  uint16_t query_high[kRows][kStride];
  uint16_t query_low[kRows][kStride];
  uint16_t keys[2][kKeys][kStride];  // this tile and the next
  uint16_t values[2][kKeys][kStride];
};

// Which query a row of the tile is.
struct Row {
  int64_t token;  // -1: none
  int64_t head;
};
__device__ __forceinline__ Row RowOfTile(const Work& work, int row) {
  const int64_t first_token = work.first_token + BlockX() / work.head_tiles * work.tokens_of_tile;
  const int64_t first_head = BlockX() % work.head_tiles * work.heads_of_tile;
  const int64_t token = first_token + row / work.heads_of_tile;
  const int64_t head = first_head + row % work.heads_of_tile;
  const int64_t item = token * work.args.layer.num_kv_heads + BlockY();
  const bool valid = row / work.heads_of_tile < work.tokens_of_tile && token < work.end_token &&
                     head < work.group && item >= work.args.item_begin && item < work.args.item_end;
  return {valid ? token : -1, BlockY() * work.group + head};
}

__device__ __forceinline__ int CountBits64(uint64_t bits) {
  return CountBits(static_cast<uint32_t>(bits)) + CountBits(static_cast<uint32_t>(bits >> 32));
}

// Which keys a token sees, by their slots: those in [first, end), of which those from tree_begin on
// only if their bit of `nodes` is set. Its ancestors say their positions.
struct Keys {
  int64_t first, end;
  int64_t own;  // the token's position
  int64_t tree_begin;
  uint64_t ancestors, nodes;
};
template <bool kTree>
__device__ __forceinline__ Keys KeysOf(const AttentionArgs& args, int64_t token) {
  const int64_t length = args.lengths[token];
  Keys keys = {0, length, length - 1, length, 0, 0};
  if constexpr (kTree) {
    keys.tree_begin = args.tree_begin[token];
    keys.ancestors = keys.nodes = args.ancestors[token];
    keys.own = keys.tree_begin + CountBits64(keys.ancestors) - 1;
  }
  if (args.window != 0 && args.window <= keys.own) keys.first = keys.own + 1 - args.window;
  if constexpr (kTree) {
    if (keys.first >= keys.tree_begin && keys.nodes != 0) {
      for (int64_t i = keys.first - keys.tree_begin; i > 0; --i) keys.nodes &= keys.nodes - 1;
      const uint64_t lowest = keys.nodes & (~keys.nodes + 1);
      keys.first = keys.tree_begin + CountBits64(lowest - 1);
    }
  }
  return keys;
}

// Tokens [begin, end) of the tile that share a block table, and the keys that one of them sees in
// this block's partition.
struct Run {
  int64_t begin, end;
  int64_t first_key, end_key;
  const uint32_t* blocks;
};
template <bool kTree>
__device__ __forceinline__ Run NextRun(const Work& work, int64_t begin, int64_t end_of_tile) {
  const AttentionArgs& args = work.args;
  Run run = {begin, begin, INT64_MAX, 0, args.block_tables[begin]};
  while (run.end < end_of_tile && args.block_tables[run.end] == run.blocks) {
    const Keys keys = KeysOf<kTree>(args, run.end);
    if (keys.first < run.first_key) run.first_key = keys.first;
    if (keys.end > run.end_key) run.end_key = keys.end;
    ++run.end;
  }
  const int64_t split_begin = BlockZ() * work.keys_of_split;
  const int64_t split_end = split_begin + work.keys_of_split;
  if (run.first_key < split_begin) run.first_key = split_begin;
  if (run.end_key > split_end) run.end_key = split_end;
  return run;
}

template <typename T>
__device__ void LoadQueries(const Work& work, T* tile) {
  const AttentionArgs& args = work.args;
  const int dim = static_cast<int>(args.layer.head_dim);
  const float scale = args.softcap == 0 ? args.scale * kLog2E : args.scale;
  for (int i = ThreadIndex(); i < T::kRows * T::kStride; i += T::kThreads) {
    const int column = i % T::kStride;
    const Row row = RowOfTile(work, i / T::kStride);
    float value = 0;
    if (row.token >= 0 && column < dim) {
      value = args.query[row.token * args.query_stride + row.head * dim + column] * scale;
    }
    const uint16_t high = FloatToHalf(value);
    const float rest = value - HalfToFloat(high);
    tile->query_high[i / T::kStride][column] = high;
    tile->query_low[i / T::kStride][column] = rest == rest ? FloatToHalf(rest) : uint16_t{0};
  }
}

// Starts copies of keys and values [first, first + kKeys); zeros where the run sees none, since the
// cache may hold anything there.
template <typename T, int kKeys>
__device__ void StartCopies(const AttentionArgs& args, const Run& run, int64_t first, int stage,
                            T* tile) {
  const int dim = static_cast<int>(args.layer.head_dim);
  const int pieces = (dim + 15) / 16 * (16 / kHalvesOfCopy);
  const int64_t matrix = kKvBlockTokens * dim;
  for (int i = ThreadIndex(); i < kKeys * pieces; i += T::kThreads) {
    const int key_in_tile = i / pieces;
    const int column = i % pieces * kHalvesOfCopy;
    const int64_t key = first + key_in_tile;
    const bool seen = key >= run.first_key && key < run.end_key;
    const std::byte* block = args.layer.blocks;
    if (seen) block += run.blocks[key / kKvBlockTokens] * args.layer.block_bytes;
    const auto* from = reinterpret_cast<const uint16_t*>(block) + BlockY() * 2 * matrix +
                       key % kKvBlockTokens * dim + column;
    uint16_t* keys = &tile->keys[stage][key_in_tile][column];
    uint16_t* values = &tile->values[stage][key_in_tile][column];
    if (dim % kHalvesOfCopy == 0) {
      CopyAsync16(keys, from, seen && column < dim);
      CopyAsync16(values, from + matrix, seen && column < dim);
      continue;
    }
    for (int j = 0; j < kHalvesOfCopy; ++j) {
      const bool valid = seen && column + j < dim;
      keys[j] = valid ? from[j] : uint16_t{0};
      values[j] = valid ? from[matrix + j] : uint16_t{0};
    }
  }
  CommitCopies();
}

// The softmax of two rows, g and g + 8 of the warp, as far as it has come.
struct Softmax {
  float largest[2];
  float sum[2];  // of this lane's keys
};

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

// Which keys of the run each of a lane's two rows sees, and its head's slope.
struct Sight {
  Keys keys[2];
  float slope[2];
};
template <bool kTree>
__device__ __forceinline__ Sight SightOfRows(const Work& work, const Run& run) {
  Sight sight = {};
  for (int half = 0; half < 2; ++half) {
    const Row row = RowOfTile(work, Warp() * kRowsOfWarp + Lane() / 4 + 8 * half);
    if (row.token < run.begin || row.token >= run.end) continue;
    Keys& keys = sight.keys[half];
    keys = KeysOf<kTree>(work.args, row.token);
    if (keys.first < run.first_key) keys.first = run.first_key;
    if (keys.end > run.end_key) keys.end = run.end_key;
    if (work.args.slopes != nullptr) sight.slope[half] = work.args.slopes[row.head];
  }
  return sight;
}

__device__ __forceinline__ float RoundToBf16(float value) {
  const uint32_t bits = BitsOfFloat(value);
  return FloatFromBits((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

// What ALiBi adds to a score.
__device__ __forceinline__ float Bias(const AttentionArgs& args, float slope, int64_t key,
                                      int64_t own) {
  if (!args.slopes_in_bf16) return slope * static_cast<float>(key - own);
  return args.scale * (RoundToBf16(slope * RoundToBf16(static_cast<float>(key))) -
                       RoundToBf16(slope * RoundToBf16(static_cast<float>(own))));
}

template <bool kTree>
__device__ __forceinline__ bool Sees(const Keys& keys, int64_t key) {
  const bool in_range = key >= keys.first && key < keys.end;
  if constexpr (kTree) {
    return in_range && (key < keys.tree_begin || (keys.nodes >> (key - keys.tree_begin) & 1) != 0);
  } else {
    return in_range;
  }
}

// Of a key that is seen.
template <bool kTree>
__device__ __forceinline__ int64_t PositionOf(const Keys& keys, int64_t key) {
  if constexpr (kTree) {
    if (key >= keys.tree_begin) {
      const uint64_t older = (uint64_t{1} << (key - keys.tree_begin)) - 1;
      return keys.tree_begin + CountBits64(keys.ancestors & older);
    }
  }
  return key;
}

// Scores to weights, which replace them; returns what earlier results are multiplied by.
template <int kKeys, bool kTree>
__device__ __forceinline__ void Weigh(const AttentionArgs& args, const Sight& sight,
                                      int64_t first_key, float (&scores)[kKeys / 8][4],
                                      Softmax* softmax, float (&correction)[2]) {
  const float minus_infinity = FloatFromBits(0xff800000u);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Keys& keys = sight.keys[half];
    float largest = softmax->largest[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        const int64_t key = first_key + n * 8 + Lane() % 4 * 2 + i;
        const bool seen = Sees<kTree>(keys, key);
        if (args.slopes != nullptr && (!kTree || seen)) {
          const float bias = Bias(args, sight.slope[half], PositionOf<kTree>(keys, key), keys.own);
          score += args.softcap == 0 ? bias * kLog2E : bias;
        }
        if (args.softcap != 0) score = args.softcap * tanhf(score / args.softcap) * kLog2E;
        if (!seen) score = minus_infinity;
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(largest, ShuffleXor(largest, 1));
    largest = fmaxf(largest, ShuffleXor(largest, 2));
    // While a row has seen no key there is nothing to correct, and its weights are 0.
    const bool none = largest == minus_infinity;
    correction[half] = none ? 1.0f : exp2f(softmax->largest[half] - largest);
    softmax->largest[half] = largest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        score = score == minus_infinity ? 0.0f : exp2f(score - largest);
        sum += score;
      }
    }
    softmax->sum[half] = softmax->sum[half] * correction[half] + sum;
  }
}

// Two numbers as two f16 each, whose sums are the numbers to 22 bits.
struct SplitPair {
  uint32_t high, low;
};
__device__ __forceinline__ SplitPair Split(float first, float second) {
  const uint16_t h0 = FloatToHalf(first);
  const uint16_t h1 = FloatToHalf(second);
  const uint16_t l0 = FloatToHalf(first - HalfToFloat(h0));
  const uint16_t l1 = FloatToHalf(second - HalfToFloat(h1));
  return {static_cast<uint32_t>(h0) | static_cast<uint32_t>(h1) << 16,
          static_cast<uint32_t>(l0) | static_cast<uint32_t>(l1) << 16};
}

template <typename T, int kDim, int kKeys>
__device__ __forceinline__ void AddValues(const AttentionArgs& args, const T* tile, int stage,
                                          const float (&weights)[kKeys / 8][4],
                                          float (&out)[kDim / 8][4]) {
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
    for (int n = 0; n < kDim / 16; ++n) {
      if (n * 16 >= dim) break;
      uint32_t b[4];  // channels 0..7 of keys 0..7, 8..15, then channels 8..15
      LoadMatricesTransposed(
          b, &tile->values[stage][step * 16 + Lane() % 16][n * 16 + Lane() / 16 * 8]);
      MmaF16(out[2 * n], low, b[0], b[1]);
      MmaF16(out[2 * n + 1], low, b[2], b[3]);
      MmaF16(out[2 * n], high, b[0], b[1]);
      MmaF16(out[2 * n + 1], high, b[2], b[3]);
    }
  }
}

// Where the result of a row, or of its partition, goes.
template <int kDim>
__device__ void WriteRows(const Work& work, Softmax softmax, const float (&out)[kDim / 8][4]) {
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
    float divisor = sum;
    if (work.splits > 1) {
      const int64_t item = (row.token - work.first_token) * args.num_heads + row.head;
      to = args.scratch + (item * work.splits + BlockZ()) * (dim + 2);
      divisor = 1;
      to[dim] = softmax.largest[half];
      to[dim + 1] = sum;
    }
#pragma unroll
    for (int i = 0; i < kDim / 8 * 2; ++i) {
      const int64_t column = i / 2 * 8 + Lane() % 4 * 2 + i % 2;
      if (column < dim) to[column] = out[i / 2][2 * half + i % 2] / divisor;
    }
  }
}

template <int kDim, int kWarps, int kKeys, bool kTree>
__global__ void __launch_bounds__(kWarps* kWarpThreads) AttentionKernel(Work work) {
  using T = Tile<kDim, kWarps, kKeys>;
  auto* tile = SharedMemory<T>();
  const AttentionArgs& args = work.args;
  const float minus_infinity = FloatFromBits(0xff800000u);
  Softmax softmax = {{minus_infinity, minus_infinity}, {0, 0}};
  float out[kDim / 8][4] = {};
  LoadQueries(work, tile);

  const int64_t first = work.first_token + BlockX() / work.head_tiles * work.tokens_of_tile;
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
      AddValues<T, kDim, kKeys>(args, tile, stage, scores, out);
    }
  }
  WriteRows<kDim>(work, softmax, out);
}

constexpr int kCombineThreads = 128;

// One block for each token and query head.
__global__ void __launch_bounds__(kCombineThreads) CombineKernel(Work work) {
  const AttentionArgs& args = work.args;
  const int64_t dim = args.layer.head_dim;
  const int64_t token = work.first_token + BlockX();
  const int64_t item = token * args.layer.num_kv_heads + BlockY() / work.group;
  if (item < args.item_begin || item >= args.item_end) return;
  const float* parts =
      args.scratch + (BlockX() * args.num_heads + BlockY()) * work.splits * (dim + 2);
  float largest = FloatFromBits(0xff800000u);
  for (int64_t i = 0; i < work.splits; ++i) largest = fmaxf(largest, parts[i * (dim + 2) + dim]);
  float* out = args.out + token * args.out_stride + BlockY() * dim;
  for (int64_t column = ThreadIndex(); column < dim; column += kCombineThreads) {
    float sum = 0;
    float value = 0;
    for (int64_t i = 0; i < work.splits; ++i) {
      const float* part = parts + i * (dim + 2);
      const float weight = exp2f(part[dim] - largest);
      sum = fmaf(part[dim + 1], weight, sum);
      value = fmaf(part[column], weight, value);
    }
    out[column] = value / sum;
  }
}

template <int kDim, int kWarps, int kKeys, bool kTree>
void LaunchTilesOf(Work work, CUstream_st* stream) {
  using T = Tile<kDim, kWarps, kKeys>;
  const int64_t run = std::max<int64_t>(1, work.args.longest_run);
  work.heads_of_tile = std::min<int64_t>(work.group, T::kRows);
  work.tokens_of_tile = std::min(run, T::kRows / work.heads_of_tile);
  work.head_tiles = (work.group + work.heads_of_tile - 1) / work.heads_of_tile;
  const int64_t tokens = work.end_token - work.first_token;
  const int64_t token_tiles = (tokens + work.tokens_of_tile - 1) / work.tokens_of_tile;
  Launch<AttentionKernel<kDim, kWarps, kKeys, kTree>>(
      {token_tiles * work.head_tiles, work.args.layer.num_kv_heads, work.splits}, T::kThreads,
      sizeof(T), stream, work);
  if (work.splits > 1) {
    Launch<CombineKernel>({tokens, work.args.num_heads}, kCombineThreads, 0, stream, work);
  }
}

template <int kDim, int kWarps, int kKeys>
void LaunchTiles(const Work& work, CUstream_st* stream) {
  if (work.args.tree_begin == nullptr) {
    LaunchTilesOf<kDim, kWarps, kKeys, false>(work, stream);
  } else {
    LaunchTilesOf<kDim, kWarps, kKeys, true>(work, stream);
  }
}

// Each token's keys in partitions, as many tokens at once as the scratch memory holds.
void AttendInPartitions(Work work, CUstream_st* stream) {
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
  Work work = {};
  work.args = args;
  work.group = args.num_heads / kv_heads;
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
