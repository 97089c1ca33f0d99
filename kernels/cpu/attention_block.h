// One block of 16 keys and values for the queries of a tile (attention_tiles.h).
#ifndef SLUICE_KERNELS_CPU_ATTENTION_BLOCK_H_
#define SLUICE_KERNELS_CPU_ATTENTION_BLOCK_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/attention_keys.h"
#include "kernels/ops.h"
#include "kernels/visible_keys.h"

namespace sluice {
namespace {  // NOLINT: see there

constexpr int64_t kTileFloats = 8192;  // of the queries of a tile, and of their outputs
constexpr int64_t kLargestTile = 128;  // queries
constexpr int kGroup = 6;              // queries whose sums share each load of keys and values
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The queries of `tokens` consecutive tokens with one block table, `heads` for each of `kv_heads`
// consecutive KV heads; a query's index is (KV head * tokens + token) * heads + head.
struct Tile {
  int64_t first_token, tokens;
  int64_t first_kv_head, kv_heads;
  int64_t first_head, heads;  // among those of their KV head
  int64_t dim;
  int64_t padded_dim;  // to a multiple of 16; the queries are zero beyond dim
  alignas(64) float queries[kTileFloats];
  alignas(64) float out[kTileFloats];                    // of this split: weighted sums of values
  alignas(64) float sums[kLargestTile][kKvBlockTokens];  // of weights, lane by lane
  alignas(64) float weights[kGroup][kKvBlockTokens];
  float corrections[kGroup];  // by which older sums shrink
  float largest[kLargestTile];
  alignas(64) float total[kTileFloats];  // of this split and those before it
  float total_sum[kLargestTile];
  float total_largest[kLargestTile];
  int64_t first_key;  // index, of the block
  int64_t ahead;      // bytes from a block's keys to those that follow
  // What the token whose queries are attending sees of the block; null: all keys of a span.
  const Branch* branch;
};

// Rows of 16 values, `stride` elements apart, from some channel on.
template <typename Bits>
struct Values {
  const Bits* rows;
  int64_t stride;
  int64_t ahead;  // bytes to the rows that follow; 0: nothing is asked for
};

// Sixteen scores of each of some queries, from even and odd channels in a chain each.
template <typename Simd, int queries, typename PanelBits>
void Score(const PanelBits (*panel)[kKvBlockTokens], const float* query, const Tile& tile,
           typename Simd::Vector* scores) {
  if constexpr (queries > Simd::kScoreQueries) {
    constexpr int kFirst = (queries + 1) / 2;
    Score<Simd, kFirst>(panel, query, tile, scores);
    Score<Simd, queries - kFirst>(panel, query + kFirst * tile.padded_dim, tile, scores + kFirst);
  } else {
    typename Simd::Vector even[queries];
    typename Simd::Vector odd[queries];
#pragma GCC unroll 6
    for (int q = 0; q < queries; ++q) even[q] = odd[q] = Simd::Set(0.0f);
    for (int64_t i = 0; i < tile.dim; i += 2) {
      const auto first = Simd::Load(panel[i]);
      const auto second = Simd::Load(panel[i + 1]);
#pragma GCC unroll 6
      for (int q = 0; q < queries; ++q) {
        const float* x = query + q * tile.padded_dim + i;
        even[q] = Simd::Fma(Simd::Set(x[0]), first, even[q]);
        odd[q] = Simd::Fma(Simd::Set(x[1]), second, odd[q]);
      }
    }
#pragma GCC unroll 6
    for (int q = 0; q < queries; ++q) scores[q] = Simd::Add(even[q], odd[q]);
  }
}

// What ALiBi adds to a query's scores of a block's keys.
template <typename Simd>
typename Simd::Vector Biases(const AttentionArgs& args, int64_t query, const Tile& tile) {
  const int64_t token = tile.first_token + query / tile.heads % tile.tokens;
  const int64_t kv_head = tile.first_kv_head + query / (tile.heads * tile.tokens);
  const int64_t head =
      kv_head * (args.num_heads / args.layer.num_kv_heads) + tile.first_head + query % tile.heads;
  const int64_t own =
      args.tree_begin == nullptr ? args.lengths[token] - 1 : VisibleKeysOf(args, token).own;
  const auto slope = Simd::Set(args.slopes[head]);
  const auto from = [&](int64_t key) {
    if (tile.branch != nullptr) {
      alignas(64) float distances[kKvBlockTokens];
      for (int64_t j = 0; j < kKvBlockTokens; ++j) {
        distances[j] = static_cast<float>(tile.branch->positions[j] - key);
      }
      return Simd::Load(distances);
    }
    return Simd::Add(Simd::Set(static_cast<float>(tile.first_key - key)), Simd::Indices());
  };
  if (!args.slopes_in_bf16) return Simd::Mul(slope, from(own));
  const auto index = Simd::RoundToBf16(Simd::Set(static_cast<float>(own)));
  const auto key = Simd::RoundToBf16(from(0));
  return Simd::Mul(Simd::Set(args.scale), Simd::Sub(Simd::RoundToBf16(Simd::Mul(slope, key)),
                                                    Simd::RoundToBf16(Simd::Mul(slope, index))));
}

// Lanes whose bits are not set become minus infinity.
template <typename Simd>
typename Simd::Vector OnlyBits(typename Simd::Vector x, uint32_t bits) {
  alignas(64) float lanes[kKvBlockTokens];
  Simd::Store(lanes, x);
  for (int64_t j = 0; j < kKvBlockTokens; ++j) {
    if ((bits >> j & 1) == 0) lanes[j] = -kInfinity;
  }
  return Simd::Load(lanes);
}

// Turns a query's scores of a block's keys in `seen` into weights.
template <typename Simd>
void Weigh(const AttentionArgs& args, typename Simd::Vector score, const Span& seen, int64_t query,
           int64_t in_group, Tile* tile) {
  using Vector = typename Simd::Vector;
  score = Simd::Mul(score, Simd::Set(args.scale));
  if (args.slopes != nullptr) score = Simd::Add(score, Biases<Simd>(args, query, *tile));
  if (args.softcap != 0) score = Simd::SoftCap(score, args.softcap);
  score = Simd::Only(score, seen.begin, seen.end, -kInfinity);
  if (tile->branch != nullptr) score = OnlyBits<Simd>(score, tile->branch->seen);
  const float before = tile->largest[query];
  Vector sums = Simd::Load(tile->sums[query]);
  float correction = 1;
  if (Simd::AnyGreater(score, before)) {
    const float largest = Simd::MaxLanes(Simd::Max(score, Simd::Set(before)));
    tile->largest[query] = largest;
    correction = before == -kInfinity ? 0 : Simd::First(Simd::Exp(Simd::Set(before - largest)));
    sums = Simd::Mul(sums, Simd::Set(correction));
  }
  const Vector weights = Simd::Exp(Simd::Sub(score, Simd::Set(tile->largest[query])));
  Simd::Store(tile->sums[query], Simd::Add(sums, weights));
  Simd::Store(tile->weights[in_group], weights);
  tile->corrections[in_group] = correction;
}

// Some vectors of the output of a group of queries, from the values of the keys in `seen`; a vector
// that is not whole has `channels` channels.
template <typename Simd, int queries, int vectors, bool whole, typename Bits>
void AddSomeValues(const Values<Bits>& values, const Span& seen, int64_t channels, float* out,
                   const Tile& tile) {
  const auto load = [&](const Bits* p) {
    return whole ? Simd::Load(p) : Simd::LoadFirst(p, channels);
  };
  typename Simd::Vector sums[queries][vectors];
#pragma GCC unroll 6
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sums[q][v] =
          Simd::Mul(Simd::Load(out + q * tile.padded_dim + 16 * v), Simd::Set(tile.corrections[q]));
    }
  }
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    const Bits* row = values.rows + j * values.stride;
    if (values.ahead != 0) {
      for (int64_t at = 0; at < 16 * vectors; at += 64 / static_cast<int64_t>(sizeof(Bits))) {
        Simd::Prefetch(row + at, values.ahead);
      }
    }
    typename Simd::Vector value[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) value[v] = load(row + 16 * v);
#pragma GCC unroll 6
    for (int q = 0; q < queries; ++q) {
      const auto weight = Simd::Set(tile.weights[q][j]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[q][v] = Simd::Fma(weight, value[v], sums[q][v]);
    }
  }
#pragma GCC unroll 6
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      Simd::Store(out + q * tile.padded_dim + 16 * v, sums[q][v]);
    }
  }
}

template <typename Simd, int queries, typename Bits>
void AddValues(const Values<Bits>& values, const Span& seen, int64_t channels, float* out,
               const Tile& tile) {
  constexpr int kVectors = std::clamp(Simd::kSums / queries, 1, 4);
  const auto from = [&](int64_t i) {
    return Values<Bits>{values.rows + i, values.stride, values.ahead};
  };
  int64_t i = 0;
  for (; i + 16 * kVectors <= channels; i += 16 * kVectors) {
    AddSomeValues<Simd, queries, kVectors, true>(from(i), seen, 16, out + i, tile);
  }
  for (; i + 16 <= channels; i += 16) {
    AddSomeValues<Simd, queries, 1, true>(from(i), seen, 16, out + i, tile);
  }
  if (i < channels) {
    AddSomeValues<Simd, queries, 1, false>(from(i), seen, channels - i, out + i, tile);
  }
}

// One block of keys, transposed, and values, each in its cache's elements or in float32.
template <typename PanelBits, typename Bits>
struct Block {
  const PanelBits (*panel)[kKvBlockTokens];
  Values<Bits> values;
  int64_t channels;  // in a row of values; a wide one has zeros up to padded_dim
};

template <typename Simd, int queries, typename PanelBits, typename Bits>
void AttendGroup(const AttentionArgs& args, const Block<PanelBits, Bits>& block, int64_t query,
                 const Span& seen, Tile* tile) {
  typename Simd::Vector scores[queries];
  Score<Simd, queries>(block.panel, tile->queries + query * tile->padded_dim, *tile, scores);
  for (int q = 0; q < queries; ++q) Weigh<Simd>(args, scores[q], seen, query + q, q, tile);
  uint32_t left = tile->branch == nullptr ? 0 : tile->branch->seen;
  Span run = left == 0 ? seen : TakeRun(&left);
  while (true) {
    AddValues<Simd, queries>(block.values, run, block.channels,
                             tile->out + query * tile->padded_dim, *tile);
    if (left == 0) return;
    std::fill_n(tile->corrections, queries, 1.0f);
    run = TakeRun(&left);
  }
}

// Queries [begin, end), which see the same keys of the block.
template <typename Simd, typename PanelBits, typename Bits>
void AttendQueries(const AttentionArgs& args, const Block<PanelBits, Bits>& block, int64_t begin,
                   int64_t end, const Span& seen, Tile* tile) {
  using Function = decltype(&AttendGroup<Simd, 1, PanelBits, Bits>);
  static constexpr Function kFunctions[kGroup] = {
      AttendGroup<Simd, 1, PanelBits, Bits>, AttendGroup<Simd, 2, PanelBits, Bits>,
      AttendGroup<Simd, 3, PanelBits, Bits>, AttendGroup<Simd, 4, PanelBits, Bits>,
      AttendGroup<Simd, 5, PanelBits, Bits>, AttendGroup<Simd, 6, PanelBits, Bits>};
  // As few groups as possible, of nearly equal size.
  for (int64_t groups = (end - begin + kGroup - 1) / kGroup; groups > 0; --groups) {
    const int64_t count = (end - begin + groups - 1) / groups;
    kFunctions[count - 1](args, block, begin, seen, tile);
    begin += count;
  }
}

// The block of one KV head whose first key has the index `begin`; every query of the tile sees the
// keys in `shared`.
template <typename Simd, typename PanelBits, typename Bits>
void AttendBlock(const AttentionArgs& args, const Block<PanelBits, Bits>& block, int64_t begin,
                 int64_t kv_head, const Span& shared, int64_t split, Tile* tile) {
  const int64_t query = kv_head * tile->tokens * tile->heads;
  tile->first_key = begin;
  if (begin >= shared.begin && begin + kKvBlockTokens <= shared.end) {
    AttendQueries<Simd>(args, block, query, query + tile->tokens * tile->heads, {0, kKvBlockTokens},
                        tile);
    return;
  }
  for (int64_t t = 0; t < tile->tokens; ++t) {
    const Span keys = KeysOfSplit(args, tile->first_token + t, split);
    const Span seen = {std::max<int64_t>(keys.begin - begin, 0),
                       std::min(kKvBlockTokens, keys.end - begin)};
    if (seen.begin >= seen.end) continue;
    Branch branch;
    if (args.tree_begin != nullptr && BranchOf(args, tile->first_token + t, begin, &branch)) {
      if (branch.seen == 0) continue;
      tile->branch = &branch;
    }
    AttendQueries<Simd>(args, block, query + t * tile->heads, query + (t + 1) * tile->heads, seen,
                        tile);
    tile->branch = nullptr;
  }
}

// Keys become a panel, and values that enough queries share become float32.
template <typename Simd, typename Bits>
void OpenBlock(const AttentionArgs& args, const Bits* keys, int64_t begin, int64_t kv_head,
               const Span& shared, int64_t split, Tile* tile) {
  using PanelBits = typename Simd::template PanelBits<Bits>;
  alignas(64) PanelBits panel[kLargestSplitDim][kKvBlockTokens];
  Simd::Transpose(keys, tile->dim, tile->ahead, panel);
  const Bits* values = keys + kKvBlockTokens * tile->dim;
  if (sizeof(Bits) == sizeof(float) || tile->tokens * tile->heads < Simd::kWidenQueries) {
    const Block<PanelBits, Bits> block = {panel, {values, tile->dim, tile->ahead}, tile->dim};
    AttendBlock<Simd>(args, block, begin, kv_head, shared, split, tile);
    return;
  }
  alignas(64) float wide[kKvBlockTokens * kLargestSplitDim];
  for (int64_t j = 0; j < kKvBlockTokens; ++j) {
    for (int64_t i = 0; i < tile->padded_dim; i += 16) {
      if (i % 32 == 0) Simd::Prefetch(values + j * tile->dim + i, tile->ahead);
      Simd::Store(wide + j * tile->padded_dim + i,
                  Simd::LoadFirst(values + j * tile->dim + i, tile->dim - i));
    }
  }
  const Block<PanelBits, float> block = {panel, {wide, tile->padded_dim, 0}, tile->padded_dim};
  AttendBlock<Simd>(args, block, begin, kv_head, shared, split, tile);
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_ATTENTION_BLOCK_H_
