#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention_combine.h"
#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

// The largest score of each query, and the weights of the warp's keys, which replace their scores;
// the block meets in it.
template <typename D>
__device__ __forceinline__ void Weigh(float (&scores)[kTilesOfWarp][D::kSlots][2],
                                      typename D::Shared* shared) {
  const float minus_infinity = FloatFromBits(0xff800000u);
#pragma unroll
  for (int slot = 0; slot < D::kSlots; ++slot) {
    float largest = minus_infinity;
#pragma unroll
    for (auto& tile : scores) largest = fmaxf(largest, fmaxf(tile[slot][0], tile[slot][1]));
#pragma unroll
    for (int mask = 4; mask < kWarpThreads; mask *= 2) {
      largest = fmaxf(largest, ShuffleXor(largest, mask));
    }
    if (Lane() < 4) shared->largest[Warp()][QueryOfSlot<D>(slot)] = largest;
  }
  SyncThreads();
#pragma unroll
  for (int slot = 0; slot < D::kSlots; ++slot) {
    const int query = QueryOfSlot<D>(slot);
    const float largest = LargestOf<D>(query, shared);
    float sum = 0;
#pragma unroll
    for (auto& tile : scores) {
#pragma unroll
      for (float& score : tile[slot]) {
        score = score == minus_infinity ? 0.0f : exp2f(score - largest);
        sum += score;
      }
    }
#pragma unroll
    for (int mask = 4; mask < kWarpThreads; mask *= 2) sum += ShuffleXor(sum, mask);
    if (Lane() < 4) shared->sums[Warp()][query] = sum;
  }
}

// Whether a value of the tile is not finite; a warp's question.
template <typename D>
__device__ __forceinline__ bool HasNotFinite(const typename D::Stage& values) {
  uint32_t found = 0;
  for (int i = 0; i < D::kDim; i += 16) {
    uint32_t words[4];
    LoadMatrices(words, &values[Lane() % kTileKeys][i + Lane() / kTileKeys * 8]);
    for (uint32_t word : words) found |= NotFinite(word);
  }
  return Ballot(found != 0) != 0;
}

// Adds the values of a tile that are not finite to the columns that see them, whose results are not
// finite then, whatever the weights.
template <typename D, bool kTree>
__device__ void AddNotFinite(const typename D::Stage& values, int first_key,
                             const Column<kTree> (&columns)[D::kSlots],
                             float (&out)[D::kDim / 16][D::kColumnTiles][4]) {
  if (D::kPacked && Lane() % 4 >= 2) return;  // what is left of the weights
#pragma unroll 1
  for (int key = 0; key < kTileKeys; ++key) {
#pragma unroll
    for (int slot = 0; slot < D::kSlots; ++slot) {
      if (!columns[slot].SeesKey(first_key + key)) continue;
#pragma unroll
      for (int i = 0; i < D::kDim / 8; ++i) {
        const uint16_t value = values[key][PlaceOfPiece<D>(key, i, 0) + Lane() / 4];
        if (NotFinite(value) != 0) {
          out[i / 2][slot / 2][i % 2 * 2 + slot % 2] += HalfToFloat(value);
        }
      }
    }
  }
}

// A warp's share of a partition, for the rows of a run: its results and sums to shared memory.
template <typename D, bool kTree>
__device__ __forceinline__ void AttendToTiles(const AttentionWork& work, const Run& run, int begin,
                                              int end, typename D::Shared* shared) {
  auto& own = shared->warps[Warp()];
  TileRing<D> ring(work.args, run, begin, end, own.ring);
  Column<kTree> columns[D::kSlots];
  SyncThreads();  // the rows are there
  LoadColumns<D, kTree>(work, *shared, columns);
  float scores[kTilesOfWarp][D::kSlots][2];
#pragma unroll
  for (auto& tile : scores) {
#pragma unroll
    for (auto& slot : tile) slot[0] = slot[1] = FloatFromBits(0xff800000u);
  }
  uint32_t queries[D::kDim / 16][D::kColumnTiles][2];
  LoadQueryColumns<D>(work, *shared, queries);
#pragma unroll 1
  for (int tile = 0; tile < ring.count(); ++tile) {
    float products[D::kSlots][2];
    ProductsOfTile<D>(ring.Take(), queries, products);
    ring.Release();
#pragma unroll
    for (int i = 0; i < 2 * D::kSlots; ++i) {
      const Column<kTree>& column = columns[i / 2];
      const int key = ring.KeyOf(tile) + Lane() / 4 + i % 2 * 8;
      const auto position = [&] { return column.PositionOf(key); };
      const float score = WholeScore<kTree>(work.args, column.slope, column.own,
                                            column.SeesKey(key), position, products[i / 2][i % 2]);
      // Registers have no index.
#pragma unroll
      for (int j = 0; j < kTilesOfWarp; ++j) {
        if (j == tile) scores[j][i / 2][i % 2] = score;
      }
    }
  }
  Weigh<D>(scores, shared);
  float out[D::kDim / 16][D::kColumnTiles][4] = {};
#pragma unroll 1
  for (int tile = 0; tile < ring.count(); ++tile) {
    float of_tile[D::kSlots][2] = {};
#pragma unroll
    for (int i = 0; i < kTilesOfWarp * D::kSlots * 2; ++i) {
      const int slot = i / 2 % D::kSlots;
      if (i / (2 * D::kSlots) == tile)
        of_tile[slot][i % 2] = scores[i / (2 * D::kSlots)][slot][i % 2];
    }
    uint32_t weights[D::kColumnTiles][2];
    WeightColumns<D>(of_tile, weights);
    const typename D::Stage& values = ring.Take();
    const int key = ring.KeyOf(tile);
    const int from = key < begin ? begin : key;
    const int to = key + kTileKeys > end ? end : key + kTileKeys;
    bool misses = false;
#pragma unroll
    for (const Column<kTree>& column : columns) misses = misses || column.Misses(from, to);
    // Nearly always all rows see the same of a tile.
    if (Ballot(misses) == 0 || !HasNotFinite<D>(values)) {
      AddValues<false, D>(values, weights, out);
    } else {
      AddValues<true, D>(values, weights, out);
      AddNotFinite<D, kTree>(values, key, columns, out);
    }
    ring.Release();
  }
#pragma unroll
  for (int n = 0; n < D::kHighTiles; ++n) {
#pragma unroll
    for (int i = 0; i < D::kDim / 16 * 4; ++i) {
      const int channel = i / 4 * 16 + Lane() / 4 + i % 4 / 2 * 8;
      const int column = n * 8 + Lane() % 4 * 2 + i % 2;
      float value = out[i / 4][n][i % 4];
      if constexpr (!D::kPacked) value += out[i / 4][n + D::kHighTiles][i % 4];
      own.results[column][channel] = value;
    }
  }
}

// Blocks that a multiprocessor should hold: as many as its shared memory does, where registers for
// the sums leave room.
template <int kDim, int kQueries, bool kTree>
constexpr int BlocksAtOnce() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
  constexpr int kSums = kDim / 16 * Decode<kDim, kQueries>::kColumnTiles * 4;
  if (!kTree && kDim <= 128) return kSums <= 32 ? 4 : kSums <= 64 ? 3 : 2;
#endif
  return 2;
}

template <int kDim, int kQueries, bool kTree>
__global__ void __launch_bounds__(kDecodeThreads, (BlocksAtOnce<kDim, kQueries, kTree>()))
    DecodeKernel(AttentionWork work) {
  TakeTurn();
  using D = Decode<kDim, kQueries>;
  auto* shared = SharedMemory<typename D::Shared>();
  const int tile = static_cast<int>(BlockX());
  const int64_t first = work.first_token + int64_t{tile / work.head_tiles} * work.tokens_of_tile;
  int64_t end = first + work.tokens_of_tile;
  if (end > work.end_token) end = work.end_token;
  for (int64_t token = first; token < end;) {
    const Run run = NextRun<kTree>(work.args, token, end);
    token = run.end;
    const int first_split = FirstSplit(run.first_key);
    const int end_split = EndSplit(run.end_key);
    if (BlockZ() < first_split || BlockZ() >= end_split) continue;
    SyncThreads();  // the run before is done with the shared memory
    if (ThreadIndex() < kQueries) {
      const int query = ThreadIndex();
      Row row = RowOfTile(work, query);
      if (row.token < run.begin || row.token >= run.end) row.token = -1;
      shared->rows[query] = row;
      shared->first_split[query] = shared->end_split[query] = 0;
      if (row.token >= 0) {
        shared->parts[query] = static_cast<int>(FirstPartOf(work, row));
        const Keys keys = KeysOf<kTree>(work.args, row.token);
        shared->first_split[query] = FirstSplit(keys.first);
        shared->end_split[query] = EndSplit(keys.end);
      }
    }
    AttendToTiles<D, kTree>(work, run, InPartition(run.first_key), InPartition(run.end_key),
                            shared);
    SyncThreads();
    const int splits = end_split - first_split;
    WritePart<D>(work, splits == 1, shared);
    if (splits == 1) continue;
    // One for each token, tile of heads and KV head, of which those of a run's first token count.
    const int64_t counter =
        ((run.begin - work.first_token) * work.head_tiles + tile % work.head_tiles) *
            work.args.layer.num_kv_heads +
        BlockY();
    if (IsLastOfRun<D>(reinterpret_cast<int*>(work.args.scratch) + counter, splits, shared)) {
      CombineParts<D>(work, first_split, end_split, shared);
    }
  }
}

template <int kDim, int kQueries, bool kTree>
void LaunchDecode(AttentionWork work, CUstream_st* stream) {
  const AttentionArgs& args = work.args;
  work.heads_of_tile = std::min(work.group, kQueries);
  // A longest run of 0 is one of 1.
  work.tokens_of_tile =
      static_cast<int>(std::clamp<int64_t>(args.longest_run, 1, kQueries / work.heads_of_tile));
  work.head_tiles = (work.group + work.heads_of_tile - 1) / work.heads_of_tile;
  const int64_t kv_heads = args.layer.num_kv_heads;
  const int64_t end = work.end_token;
  int64_t at_once = end - work.first_token;
  if (work.splits > 1) {
    const int64_t one =
        GpuAttentionScratchOfToken(args.num_heads, args.layer.head_dim, args.longest_length);
    at_once = std::min((args.scratch_size - kGpuAttentionCounters) / one,
                       kGpuAttentionCounters / (work.head_tiles * kv_heads));
    at_once = std::max<int64_t>(1, at_once);
  }
  for (; work.first_token < end; work.first_token += at_once) {
    work.end_token = std::min(end, work.first_token + at_once);
    const int64_t tokens = work.end_token - work.first_token;
    const int64_t token_tiles = (tokens + work.tokens_of_tile - 1) / work.tokens_of_tile;
    Launch<DecodeKernel<kDim, kQueries, kTree>>(
        {token_tiles * work.head_tiles, kv_heads, work.splits}, kDecodeThreads,
        sizeof(typename Decode<kDim, kQueries>::Shared), stream, work);
  }
}

// With as few columns as hold the queries. A query's bits are the same in each.
template <int kDim>
void LaunchColumns(const AttentionWork& work, CUstream_st* stream) {
  constexpr int kMost = kDim > 128 ? 4 : 16;  // as the registers hold
  if (work.args.tree_begin != nullptr) return LaunchDecode<kDim, kMost, true>(work, stream);
  const int64_t queries = work.group * std::max<int64_t>(1, work.args.longest_run);
  if (queries <= 4) return LaunchDecode<kDim, 4, false>(work, stream);
  if (queries <= 8) return LaunchDecode<kDim, std::min(8, kMost), false>(work, stream);
  LaunchDecode<kDim, kMost, false>(work, stream);
}

}  // namespace

void AttendInPartitions(AttentionWork work, CUstream_st* stream) {
  const AttentionArgs& args = work.args;
  work.splits = std::max<int64_t>(
      1, (args.longest_length + kGpuAttentionPartition - 1) / kGpuAttentionPartition);
  if (args.layer.head_dim <= 64) return LaunchColumns<64>(work, stream);
  if (args.layer.head_dim <= 128) return LaunchColumns<128>(work, stream);
  LaunchColumns<256>(work, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
