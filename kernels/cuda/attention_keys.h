// Which rows a tile of the attention has, and which keys each of them sees.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_KEYS_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_KEYS_H_

#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr int kRowsOfWarp = 16;

struct AttentionWork {
  AttentionArgs args;
  int group;          // query heads of one KV head
  int heads_of_tile;  // rows of a tile are tokens x these
  int tokens_of_tile;
  int head_tiles;  // tiles that the heads of one KV head take
  int64_t first_token, end_token;
  int64_t splits;  // partitions of the keys; 1: none
};

// Which query a row of the tile is.
struct Row {
  int64_t token;  // -1: none
  int64_t head;
};
__device__ __forceinline__ Row RowOfTile(const AttentionWork& work, int row) {
  const auto tile = static_cast<int>(BlockX());
  const int token_of_tile = row / work.heads_of_tile;
  const int64_t token =
      work.first_token + int64_t{tile / work.head_tiles} * work.tokens_of_tile + token_of_tile;
  const int head = tile % work.head_tiles * work.heads_of_tile + row % work.heads_of_tile;
  const int64_t item = token * work.args.layer.num_kv_heads + BlockY();
  const bool valid = token_of_tile < work.tokens_of_tile && token < work.end_token &&
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

// Tokens [begin, end) of the tile that share a block table, and the keys that one of them sees.
struct Run {
  int64_t begin, end;
  int64_t first_key, end_key;
  const uint32_t* blocks;
};
template <bool kTree>
__device__ __forceinline__ Run NextRun(const AttentionArgs& args, int64_t begin,
                                       int64_t end_of_tile) {
  Run run = {begin, begin, INT64_MAX, 0, args.block_tables[begin]};
  while (run.end < end_of_tile && args.block_tables[run.end] == run.blocks) {
    const Keys keys = KeysOf<kTree>(args, run.end);
    if (keys.first < run.first_key) run.first_key = keys.first;
    if (keys.end > run.end_key) run.end_key = keys.end;
    ++run.end;
  }
  return run;
}

// Which keys of the run each of a lane's two rows sees, and its head's slope.
struct Sight {
  bool is_row[2];  // whether there is such a row
  Keys keys[2];    // none for rows of other runs
  float slope[2];
};
template <bool kTree>
__device__ __forceinline__ Sight SightOfRows(const AttentionWork& work, const Run& run) {
  Sight sight = {};
  for (int half = 0; half < 2; ++half) {
    const Row row = RowOfTile(work, Warp() * kRowsOfWarp + Lane() / 4 + 8 * half);
    sight.is_row[half] = row.token >= 0;
    if (row.token < run.begin || row.token >= run.end) continue;
    Keys& keys = sight.keys[half];
    keys = KeysOf<kTree>(work.args, row.token);
    if (keys.first < run.first_key) keys.first = run.first_key;
    if (keys.end > run.end_key) keys.end = run.end_key;
    if (work.args.slopes != nullptr) sight.slope[half] = work.args.slopes[row.head];
  }
  return sight;
}

// Whether a row of this lane does not see all that the run sees of keys [begin, end).
template <bool kTree>
__device__ __forceinline__ bool MissesKeys(const Sight& sight, const Run& run, int64_t begin,
                                           int64_t end) {
  if (begin < run.first_key) begin = run.first_key;
  if (end > run.end_key) end = run.end_key;
  bool misses = false;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Keys& keys = sight.keys[half];
    const bool all = keys.first <= begin && keys.end >= end && (!kTree || keys.tree_begin >= end);
    misses = misses || (sight.is_row[half] && !all);
  }
  return misses;
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_KEYS_H_
