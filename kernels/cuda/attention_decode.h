// Attention of few tokens of a sequence: each block of threads takes one partition of the keys for
// one KV head (Dao et al., Flash-Decoding, 2023). Keys and values are the rows of the products'
// left side, queries and weights the columns of the right one, so that the few query heads of a KV
// head fill a product: columns are queries in f16 and what is left of them in f16. Tiles of 16 keys
// are dealt out to the warps in turn. A warp's tiles come through a ring of its own, all keys
// before all values, so that its softmax is one over all of its keys and nothing is corrected
// later.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_DECODE_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_DECODE_H_

#include "kernels/cuda/attention_halves.h"
#include "kernels/cuda/attention_keys.h"
#include "kernels/cuda/attention_softmax.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/support.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

// Each token's keys in partitions, in turns of as many tokens as the scratch memory holds.
void AttendInPartitions(AttentionWork work, CUstream_st* stream);

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeThreads = kDecodeWarps * kWarpThreads;
inline constexpr int kPartition = static_cast<int>(kGpuAttentionPartition);
inline constexpr int kTileKeys = static_cast<int>(kKvBlockTokens);
inline constexpr int kTilesOfWarp = kPartition / kTileKeys / kDecodeWarps;

// Up to kMostQueries queries of one KV head; 4: one tile of 8 columns holds both f16 parts of them,
// more: each part has tiles of its own.
template <int kHeadDim, int kMostQueries>
struct Decode {
  static constexpr int kDim = kHeadDim;
  static constexpr int kQueries = kMostQueries;
  static constexpr bool kPacked = kQueries == 4;
  static constexpr int kHighTiles = kPacked ? 1 : kQueries / 8;
  static constexpr int kColumnTiles = kPacked ? 1 : 2 * kHighTiles;
  static constexpr int kSlots = kPacked ? 2 : 2 * kHighTiles;  // queries of a lane
  static constexpr int kPieces = kDim / 8;                     // copies of 16 bytes for a row
  // 12 KiB on their way to each warp, so that two blocks fit where a multiprocessor has 100.
  static constexpr int kStages = kDim == 64 ? 6 : 3;
  static constexpr int kResultColumns = kPacked ? 8 : kQueries;
  static constexpr int kChains = kDecodeThreads / (kDim / 4);

  using Stage = uint16_t[kTileKeys][kDim];
  // Of one warp. Rows of results are apart so that a fragment meets all banks.
  union Tiles {
    Stage ring[kStages];
    float results[kResultColumns][kDim + 4];
  };
  struct Shared {
    union {
      Tiles warps[kDecodeWarps];
      float chains[kChains][kQueries][kDim];
    };
    Row rows[kQueries];   // those of this run
    int parts[kQueries];  // the first partition's
    int first_split[kQueries], end_split[kQueries];
    float largest[kDecodeWarps][kQueries];
    float sums[kDecodeWarps][kQueries];
    int is_last;
  };
};

// The query of one of a lane's columns of scores.
template <typename D>
__device__ __forceinline__ int QueryOfSlot(int slot) {
  const int column = slot / 2 * 8 + Lane() % 4 * 2 + slot % 2;
  return D::kPacked ? column % 4 : column;
}

// Where the 8 channels of piece `piece ^ of_lane` of a row are, of_lane < 8: rows are shifted
// against each other, so that those of a matrix meet all banks. `piece` is a constant, so that few
// addresses differ by more than one.
template <typename D>
__device__ __forceinline__ int PlaceOfPiece(int row, int piece, int of_lane) {
  static_assert(D::kPieces % 8 == 0);
  return piece / 8 * 64 + ((row ^ of_lane) % 8 ^ piece % 8) * 8;
}

// Starts the copies of a tile of keys or of values, [16, head_dim]: rows [begin, end), zeros for
// the others, since the cache may hold anything there, and for the channels beyond.
template <typename D>
__device__ __forceinline__ void StartCopies(const uint16_t* from, int dim, int begin, int end,
                                            typename D::Stage& to) {
  constexpr int kRowsAtOnce = kWarpThreads / D::kPieces;
  const int first = Lane() / D::kPieces;
  const int piece = Lane() % D::kPieces;
  const int column = piece * 8;
  if (begin <= 0 && end >= kTileKeys && dim == D::kDim) {
#pragma unroll
    for (int i = 0; i < kTileKeys; i += kRowsAtOnce) {
      const int row = i + first;
      CopyAsync16(&to[row][piece / 8 * 64 + ((piece ^ first) % 8 ^ i % 8) * 8],
                  from + row * D::kDim + column);
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < kTileKeys; i += kRowsAtOnce) {
    const int row = i + first;
    uint16_t* const place = &to[row][piece / 8 * 64 + ((piece ^ row) % 8) * 8];
    const bool seen = row >= begin && row < end;
    if (dim % 8 == 0) {
      CopyAsync16(place, from + row * dim + column, seen && column < dim);
      continue;
    }
#pragma unroll 1
    for (int j = 0; j < 8; ++j) {
      place[j] = seen && column + j < dim ? from[row * dim + column + j] : uint16_t{0};
    }
  }
}

// A warp's tiles of the partition that one of the run's tokens sees: first the keys of each, then
// the values of each.
template <typename D>
class TileRing {
 public:
  // The run sees keys [begin, end) of the partition.
  __device__ TileRing(const AttentionArgs& args, const Run& run, int begin, int end,
                      typename D::Stage* stages)
      : args_(args), stages_(stages), begin_(begin), end_(end) {
    const int warp = Warp();
    const int turn = (begin / kTileKeys - warp + kDecodeWarps - 1) / kDecodeWarps;
    const int end_turn =
        ((end + kTileKeys - 1) / kTileKeys - warp + kDecodeWarps - 1) / kDecodeWarps;
    first_tile_ = turn * kDecodeWarps + warp;
    count_ = end_turn - turn;
    if (Lane() < count_) {
      block_ =
          run.blocks[BlockZ() * (kPartition / kTileKeys) + first_tile_ + Lane() * kDecodeWarps];
    }
#pragma unroll 1
    for (int i = 0; i < D::kStages; ++i) StartNext();
  }

  __device__ int count() const { return count_; }
  // The first key of a tile, in the partition.
  __device__ int KeyOf(int tile) const { return (first_tile_ + tile * kDecodeWarps) * kTileKeys; }

  // The next tile, which stays until Release; all lanes.
  __device__ const typename D::Stage& Take() {
    WaitCopies<D::kStages - 1>();
    SyncWarp();
    return stages_[taken_];
  }
  __device__ void Release() {
    SyncWarp();
    taken_ = taken_ + 1 == D::kStages ? 0 : taken_ + 1;
    StartNext();
  }

 private:
  // One group of copies each time, so that Take can count.
  __device__ void StartNext() {
    if (next_ < 2 * count_) {
      const bool values = next_ >= count_;
      const int tile = values ? next_ - count_ : next_;
      const int dim = static_cast<int>(args_.layer.head_dim);
      const std::byte* block = args_.layer.blocks + Shuffle(block_, tile) * args_.layer.block_bytes;
      const int64_t matrix = BlockY() * 2 + (values ? 1 : 0);
      StartCopies<D>(reinterpret_cast<const uint16_t*>(block) + matrix * (kTileKeys * dim), dim,
                     begin_ - KeyOf(tile), end_ - KeyOf(tile), stages_[started_]);
    }
    CommitCopies();
    ++next_;
    started_ = started_ + 1 == D::kStages ? 0 : started_ + 1;
  }

  const AttentionArgs& args_;
  typename D::Stage* stages_;
  int begin_, end_;
  int first_tile_, count_;
  uint32_t block_ = 0;  // of the cache, for the tile of this lane's number
  int next_ = 0;        // to be started
  int started_ = 0, taken_ = 0;
};

// A column of scores: which keys of the partition its query sees, those of [first, end) that are
// before `tree`, and of the 64 from there on those with a bit; none for queries that are not.
template <bool kTree>
struct Column {
  int first = 0, end = 0;
  int own = 0;  // position
  float slope = 0;
  bool is_row = false;

  __device__ bool SeesKey(int key) const { return key >= first && key < end; }
  // Whether it does not see all of keys [from, to).
  __device__ bool Misses(int from, int to) const { return is_row && (first > from || end < to); }
  __device__ int64_t PositionOf(int key) const { return BlockZ() * kPartition + key; }
};
template <>
struct Column<true> {
  int first = 0, end = 0;
  int own = 0;
  float slope = 0;
  bool is_row = false;
  int tree = 0;
  uint64_t nodes = 0, ancestors = 0;

  __device__ bool SeesKey(int key) const {
    return key >= first && key < end && (key < tree || (nodes >> (key - tree) & 1) != 0);
  }
  __device__ bool Misses(int from, int to) const {
    return is_row && (first > from || end < to || tree < to);
  }
  __device__ int64_t PositionOf(int key) const {
    int64_t position = BlockZ() * kPartition + key;
    if (key >= tree) {
      const int node = key - tree;
      position += CountBits64(ancestors & ((uint64_t{1} << node) - 1)) - node;
    }
    return position;
  }
};

__device__ __forceinline__ int InPartition(int64_t key) {
  const int64_t from_begin = key - BlockZ() * kPartition;
  return from_begin < 0 ? 0 : static_cast<int>(from_begin > kPartition ? kPartition : from_begin);
}

template <typename D, bool kTree>
__device__ __forceinline__ void LoadColumns(const AttentionWork& work,
                                            const typename D::Shared& shared,
                                            Column<kTree> (&columns)[D::kSlots]) {
#pragma unroll
  for (int slot = 0; slot < D::kSlots; ++slot) {
    Column<kTree>& column = columns[slot];
    column = {};
    const Row row = shared.rows[QueryOfSlot<D>(slot)];
    column.is_row = row.token >= 0;
    if (!column.is_row) continue;
    const Keys keys = KeysOf<kTree>(work.args, row.token);
    column.first = InPartition(keys.first);
    column.end = InPartition(keys.end);
    column.own = static_cast<int>(keys.own);
    if constexpr (kTree) {
      // Below -kMostTreeNodes or above the partition there is no node in it.
      const int64_t tree = keys.tree_begin - BlockZ() * kPartition;
      column.tree = static_cast<int>(tree < -kMostTreeNodes ? -kMostTreeNodes : tree);
      column.nodes = keys.nodes;
      column.ancestors = keys.ancestors;
    }
    if (work.args.slopes != nullptr) column.slope = work.args.slopes[row.head];
  }
}

// The scaled queries as right sides of products: for each 16 channels and tile of columns.
template <typename D>
__device__ __forceinline__ void LoadQueryColumns(
    const AttentionWork& work, const typename D::Shared& shared,
    uint32_t (&queries)[D::kDim / 16][D::kColumnTiles][2]) {
  const AttentionArgs& args = work.args;
  const int dim = static_cast<int>(args.layer.head_dim);
  const float scale = args.softcap == 0 ? args.scale * kLog2E : args.scale;
#pragma unroll
  for (int n = 0; n < D::kHighTiles; ++n) {
    const int of_column = Lane() / 4;
    const Row row = shared.rows[D::kPacked ? of_column % 4 : n * 8 + of_column];
    const bool is_row = row.token >= 0;
    const float* query = args.query + (is_row ? row.token * args.query_stride + row.head * dim : 0);
#pragma unroll
    for (int i = 0; i < D::kDim / 8; ++i) {
      float values[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int channel = i * 8 + Lane() % 4 * 2 + j;
        values[j] = is_row && channel < dim ? query[channel] * scale : 0.0f;
      }
      SplitPair pair = Split(values[0], values[1]);
      // What is left of an infinite number is none.
      pair.low = FiniteOrZero(pair.low);
      if constexpr (D::kPacked) {
        queries[i / 2][0][i % 2] = of_column < 4 ? pair.high : pair.low;
      } else {
        queries[i / 2][n][i % 2] = pair.high;
        queries[i / 2][n + D::kHighTiles][i % 2] = pair.low;
      }
    }
  }
}

// Products of a tile's keys g and g + 8 with the queries of the lane's slots.
template <typename D>
__device__ __forceinline__ void ProductsOfTile(
    const typename D::Stage& keys, const uint32_t (&queries)[D::kDim / 16][D::kColumnTiles][2],
    float (&products)[D::kSlots][2]) {
  float sums[2][D::kColumnTiles][4] = {};  // of every other 16 channels, which wait less
  const int row = Lane() % 16;
#pragma unroll
  for (int step = 0; step < D::kDim / 16; ++step) {
    uint32_t a[4];  // keys 0..7, 8..15 of channels 0..7, then of 8..15
    LoadMatrices(a, &keys[row][PlaceOfPiece<D>(row, step * 2, Lane() / 16)]);
#pragma unroll
    for (int n = 0; n < D::kColumnTiles; ++n) {
      MmaF16(sums[step % 2][n], a, queries[step][n][0], queries[step][n][1]);
    }
  }
#pragma unroll
  for (int slot = 0; slot < D::kSlots; ++slot) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = 2 * half + slot % 2;
      const int n = slot / 2;
      const float high = sums[0][n][i] + sums[1][n][i];
      if constexpr (D::kPacked) {
        products[slot][half] = high + ShuffleXor(high, 2);
      } else {
        const int low = n + D::kHighTiles;
        products[slot][half] = high + (sums[0][low][i] + sums[1][low][i]);
      }
    }
  }
}

// The weights of a tile as right sides of products.
template <typename D>
__device__ __forceinline__ void WeightColumns(const float (&weights)[D::kSlots][2],
                                              uint32_t (&columns)[D::kColumnTiles][2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int n = 0; n < D::kHighTiles; ++n) {
      const SplitPair pair = Split(weights[2 * n][half], weights[2 * n + 1][half]);
      if constexpr (D::kPacked) {
        columns[0][half] = Transposed(Lane() % 4 < 2 ? pair.high : pair.low);
      } else {
        columns[n][half] = Transposed(pair.high);
        columns[n + D::kHighTiles][half] = Transposed(pair.low);
      }
    }
  }
}

// out, of channels g and g + 8 of each 16 and the columns of each tile, and the weighted values;
// with kFiniteOnly zeros instead of those that are not finite.
template <bool kFiniteOnly, typename D>
__device__ __forceinline__ void AddValues(const typename D::Stage& values,
                                          const uint32_t (&weights)[D::kColumnTiles][2],
                                          float (&out)[D::kDim / 16][D::kColumnTiles][4]) {
  const int row = Lane() % 8 + Lane() / 16 * 8;
#pragma unroll
  for (int m = 0; m < D::kDim / 16; ++m) {
    uint32_t a[4];  // channels 0..7, 8..15 of keys 0..7, then of 8..15
    LoadMatricesTransposed(a, &values[row][PlaceOfPiece<D>(row, m * 2, Lane() / 8 % 2)]);
    if constexpr (kFiniteOnly) {
      for (uint32_t& word : a) word = FiniteOrZero(word);
    }
#pragma unroll
    for (int n = 0; n < D::kColumnTiles; ++n) MmaF16(out[m][n], a, weights[n][0], weights[n][1]);
  }
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_DECODE_H_
