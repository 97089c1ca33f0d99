// Attention of several queries of one sequence at a time: each block of 16 keys is transposed once,
// so that 16 scores of a query are one vector, and is shared by the query heads of its KV head and
// by consecutive tokens. What a query computes does not depend on the others of its tile.
//
// A context is taken in splits of kAttentionSplitKeys keys by their index, each with a softmax of
// its own; splits are put together in ascending order, whether one thread computes all or each
// another (Flash-Decoding: Dao et al., 2023), so the result does not depend on the division.
//
// `Simd` has vectors of 16 floats (lanes_avx2.h, lanes_avx512.h). Every operation below acts
// on each lane in the same order whatever the instruction set, so the tables agree to the bit.
// Everything is local to the file that includes it, which is compiled for its instruction set.
#ifndef SLUICE_KERNELS_CPU_ATTENTION_TILES_H_
#define SLUICE_KERNELS_CPU_ATTENTION_TILES_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

#include "kernels/ops.h"
#include "kernels/visible_keys.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kTileFloats = 8192;  // of the queries of a tile, and of their outputs
constexpr int64_t kLargestTile = 128;  // queries
constexpr int kGroup = 6;              // queries whose sums share each load of keys and values
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What a token sees of a block in which it does not see all nodes of its tree, or where they stand
// at other positions than their slots.
struct Branch {
  uint32_t seen;  // bit j: key j
  int64_t positions[kKvBlockTokens];
};

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

// Keys that are seen, by their place in a block or by their index.
struct Span {
  int64_t begin, end;
};

// The keys that a token sees, by their index. In a tree the first and the last of them: AttendBlock
// knows those between that it does not see.
Span KeysOf(const AttentionArgs& args, int64_t token) {
  const int64_t length = args.lengths[token];
  if (args.tree_begin != nullptr) return {VisibleKeysOf(args, token).begin, length};
  return {args.window == 0 ? 0 : std::max<int64_t>(length - args.window, 0), length};
}

Span KeysOfSplit(const AttentionArgs& args, int64_t token, int64_t split) {
  const Span keys = KeysOf(args, token);
  return {std::max(keys.begin, split * kAttentionSplitKeys),
          std::min(keys.end, (split + 1) * kAttentionSplitKeys)};
}

// Up to where a token sees all keys of a span that ends there or later, at their own positions.
int64_t PlainEnd(const AttentionArgs& args, int64_t token, int64_t end) {
  if (args.tree_begin == nullptr) return end;
  return std::min(end, VisibleKeysOf(args, token).plain_end);
}

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

// The first run of bits that are set, which it takes away from them.
Span TakeRun(uint32_t* bits) {
  const int begin = std::countr_zero(*bits);
  const int end = begin + std::countr_one(*bits >> begin);
  *bits &= ~uint32_t{0} << end;
  return {begin, end};
}

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

// Calls body(query, head, token) for all queries of a tile.
template <typename Body>
void ForQueries(const AttentionArgs& args, const Tile& tile, const Body& body) {
  const int64_t heads = args.num_heads / args.layer.num_kv_heads;
  int64_t query = 0;
  for (int64_t kv = 0; kv < tile.kv_heads; ++kv) {
    for (int64_t t = 0; t < tile.tokens; ++t) {
      for (int64_t head = 0; head < tile.heads; ++head, ++query) {
        body(query, (tile.first_kv_head + kv) * heads + tile.first_head + head,
             tile.first_token + t);
      }
    }
  }
}

template <typename Simd>
void LoadQueries(const AttentionArgs& args, Tile* tile) {
  ForQueries(args, *tile, [&](int64_t query, int64_t head, int64_t token) {
    const float* x = args.query + token * args.query_stride + head * tile->dim;
    for (int64_t i = 0; i < tile->padded_dim; i += 16) {
      Simd::Store(tile->queries + query * tile->padded_dim + i,
                  Simd::LoadFirst(x + i, tile->dim - i));
    }
  });
}

// What a token sees of the keys [begin, begin + 16); false: all of the span that it sees, at their
// own positions.
bool BranchOf(const AttentionArgs& args, int64_t token, int64_t begin, Branch* branch) {
  const VisibleKeys keys = VisibleKeysOf(args, token);
  if (std::min(begin + kKvBlockTokens, keys.end) <= keys.plain_end) return false;
  branch->seen = 0;
  for (int64_t j = 0; j < kKvBlockTokens; ++j) {
    const bool seen = Sees(keys, begin + j);
    branch->seen |= static_cast<uint32_t>(seen) << j;
    branch->positions[j] = seen ? PositionOf(keys, begin + j) : keys.own;
  }
  return true;
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

// The keys of one split, for all queries of the tile from the beginning.
template <typename Simd, typename Bits>
void AttendSplit(const AttentionArgs& args, int64_t split, Tile* tile) {
  const int64_t queries = tile->kv_heads * tile->tokens * tile->heads;
  std::fill_n(tile->out, queries * tile->padded_dim, 0.0f);
  std::fill_n(tile->sums[0], queries * kKvBlockTokens, 0.0f);
  std::fill_n(tile->largest, queries, -kInfinity);
  Span all = {std::numeric_limits<int64_t>::max(), 0};  // keys that any token sees
  Span shared = {0, all.begin};                         // keys that every token sees
  for (int64_t t = 0; t < tile->tokens; ++t) {
    const Span keys = KeysOfSplit(args, tile->first_token + t, split);
    shared = {std::max(shared.begin, keys.begin),
              std::min(shared.end, PlainEnd(args, tile->first_token + t, keys.end))};
    if (keys.begin >= keys.end) continue;
    all = {std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
  }
  const KvLayer& layer = args.layer;
  const int64_t head_bytes = 2 * kKvBlockTokens * tile->dim * static_cast<int64_t>(sizeof(Bits));
  const uint32_t* table = args.block_tables[tile->first_token];
  for (int64_t begin = all.begin / kKvBlockTokens * kKvBlockTokens; begin < all.end;
       begin += kKvBlockTokens) {
    const std::byte* block = layer.blocks + table[begin / kKvBlockTokens] * layer.block_bytes;
    for (int64_t kv = 0; kv < tile->kv_heads; ++kv) {
      const std::byte* keys = block + (tile->first_kv_head + kv) * head_bytes;
      // A run of a few KiB is over before the processor has noticed it.
      const std::byte* next = keys + head_bytes;
      if (kv + 1 == tile->kv_heads && begin + kKvBlockTokens < all.end) {
        next = layer.blocks + table[begin / kKvBlockTokens + 1] * layer.block_bytes +
               tile->first_kv_head * head_bytes;
      }
      tile->ahead = next - keys;
      OpenBlock<Simd>(args, reinterpret_cast<const Bits*>(keys), begin, kv, shared, split, tile);
    }
  }
}

// Sums of the splits so far and the next one's, each beside its largest score.
struct Part {
  float* out;  // [padded_dim], aligned
  float* sum;
  float* largest;
};

template <typename Simd>
void AddPart(const float* out, float sum, float largest, int64_t padded_dim, const Part& total) {
  const float both = std::max(*total.largest, largest);
  const auto before = Simd::Exp(Simd::Set(*total.largest - both));
  const auto now = Simd::Exp(Simd::Set(largest - both));
  *total.largest = both;
  *total.sum =
      Simd::First(Simd::Fma(Simd::Set(sum), now, Simd::Mul(Simd::Set(*total.sum), before)));
  for (int64_t i = 0; i < padded_dim; i += 16) {
    const auto older = Simd::Mul(Simd::Load(total.out + i), before);
    Simd::Store(total.out + i, Simd::Fma(Simd::Load(out + i), now, older));
  }
}

template <typename Simd>
void StoreOutput(const float* total, float sum, int64_t dim, float* y) {
  for (int64_t i = 0; i < dim; i += 16) {
    Simd::StoreFirst(y + i, Simd::Div(Simd::Load(total + i), Simd::Set(sum)), dim - i);
  }
}

// Adds what AttendSplit left to the totals.
template <typename Simd>
void AddSplit(const AttentionArgs& args, int64_t split, Tile* tile) {
  ForQueries(args, *tile, [&](int64_t query, int64_t, int64_t token) {
    const Span keys = KeysOfSplit(args, token, split);
    if (keys.begin >= keys.end) return;
    const int64_t at = query * tile->padded_dim;
    const float sum = Simd::SumLanes(Simd::Load(tile->sums[query]));
    if (KeysOf(args, token).begin / kAttentionSplitKeys == split) {
      std::copy_n(tile->out + at, tile->padded_dim, tile->total + at);
      tile->total_sum[query] = sum;
      tile->total_largest[query] = tile->largest[query];
      return;
    }
    AddPart<Simd>(tile->out + at, sum, tile->largest[query], tile->padded_dim,
                  {tile->total + at, tile->total_sum + query, tile->total_largest + query});
  });
}

// A head's place among the partial results: [padded_dim] sums of values, then the sum of weights
// and the largest score.
float* PartialOf(const AttentionArgs& args, int64_t split, int64_t token, int64_t head) {
  return args.partials + ((split * args.tokens + token) * args.num_heads + head) *
                             AttentionPartialFloats(args.layer.head_dim);
}

template <typename Simd, typename Bits>
void AttendTile(const AttentionArgs& args, int64_t split, Tile* tile) {
  LoadQueries<Simd>(args, tile);
  if (args.partials != nullptr) {
    AttendSplit<Simd, Bits>(args, split, tile);
    ForQueries(args, *tile, [&](int64_t query, int64_t head, int64_t token) {
      float* partial = PartialOf(args, split, token, head);
      std::copy_n(tile->out + query * tile->padded_dim, tile->padded_dim, partial);
      partial[tile->padded_dim] = Simd::SumLanes(Simd::Load(tile->sums[query]));
      partial[tile->padded_dim + 1] = tile->largest[query];
    });
    return;
  }
  Span all = KeysOf(args, tile->first_token);
  for (int64_t t = 1; t < tile->tokens; ++t) {
    const Span keys = KeysOf(args, tile->first_token + t);
    all = {std::min(all.begin, keys.begin), std::max(all.end, keys.end)};
  }
  for (split = all.begin / kAttentionSplitKeys; split * kAttentionSplitKeys < all.end; ++split) {
    AttendSplit<Simd, Bits>(args, split, tile);
    AddSplit<Simd>(args, split, tile);
  }
  ForQueries(args, *tile, [&](int64_t query, int64_t head, int64_t token) {
    StoreOutput<Simd>(tile->total + query * tile->padded_dim, tile->total_sum[query], tile->dim,
                      args.out + token * args.out_stride + head * tile->dim);
  });
}

// KV heads `kv` of tokens [first, end), in tiles of neighbours with one block table.
template <typename Simd>
void AttendTokens(const AttentionArgs& args, const Span& kv, int64_t first, int64_t end,
                  int64_t split) {
  Tile tile;
  tile.branch = nullptr;
  tile.dim = args.layer.head_dim;
  tile.padded_dim = (tile.dim + 15) / 16 * 16;
  const int64_t heads = args.num_heads / args.layer.num_kv_heads;
  const int64_t queries = std::min(kTileFloats / tile.padded_dim, kLargestTile);
  const int64_t heads_at_once = std::min(heads, queries);
  while (first < end) {
    int64_t same = first + 1;
    while (same < end && args.block_tables[same] == args.block_tables[first]) ++same;
    const int64_t most = queries / heads_at_once;
    const int64_t tiles = (same - first + most - 1) / most;
    tile.first_token = first;
    tile.tokens = (same - first + tiles - 1) / tiles;
    // The KV heads of a block follow each other in memory: few tokens take several at once.
    const int64_t kv_at_once = std::max<int64_t>(queries / (tile.tokens * heads_at_once), 1);
    for (tile.first_kv_head = kv.begin; tile.first_kv_head < kv.end;
         tile.first_kv_head += kv_at_once) {
      tile.kv_heads = std::min(kv_at_once, kv.end - tile.first_kv_head);
      for (tile.first_head = 0; tile.first_head < heads; tile.first_head += heads_at_once) {
        tile.heads = std::min(heads_at_once, heads - tile.first_head);
        if (args.layer.type == KvType::kF32) {
          AttendTile<Simd, float>(args, split, &tile);
        } else {
          AttendTile<Simd, uint16_t>(args, split, &tile);
        }
      }
    }
    first += tile.tokens;
  }
}

// The items of the arguments: whole tokens, and before and after them the parts of one.
template <typename Simd>
void AttendItems(const AttentionArgs& args) {
  const int64_t kv_heads = args.layer.num_kv_heads;
  for (int64_t item = args.item_begin; item < args.item_end;) {
    const int64_t row = item / kv_heads;  // token, or split and token
    const int64_t split = args.partials == nullptr ? 0 : row / args.tokens;
    const int64_t token = args.partials == nullptr ? row : row % args.tokens;
    const int64_t kv_begin = item % kv_heads;
    const bool whole = kv_begin == 0 && args.item_end - item >= kv_heads;
    int64_t tokens = whole ? (args.item_end - item) / kv_heads : 1;
    if (args.partials != nullptr) tokens = std::min(tokens, args.tokens - token);
    const int64_t kv_end = whole ? kv_heads : std::min(kv_heads, kv_begin + args.item_end - item);
    AttendTokens<Simd>(args, {kv_begin, kv_end}, token, token + tokens, split);
    item += whole ? tokens * kv_heads : kv_end - kv_begin;
  }
}

// Puts the partial results of one head together.
template <typename Simd>
void CombineHead(const AttentionArgs& args, int64_t token, int64_t head) {
  const int64_t dim = args.layer.head_dim;
  const int64_t padded_dim = (dim + 15) / 16 * 16;
  const Span keys = KeysOf(args, token);
  alignas(64) float out[kLargestSplitDim];
  float sum = 0;
  float largest = 0;
  const int64_t first = keys.begin / kAttentionSplitKeys;
  for (int64_t split = first; split * kAttentionSplitKeys < keys.end; ++split) {
    const float* partial = PartialOf(args, split, token, head);
    if (split == first) {
      std::copy_n(partial, padded_dim, out);
      sum = partial[padded_dim];
      largest = partial[padded_dim + 1];
    } else {
      AddPart<Simd>(partial, partial[padded_dim], partial[padded_dim + 1], padded_dim,
                    {out, &sum, &largest});
    }
  }
  StoreOutput<Simd>(out, sum, dim, args.out + token * args.out_stride + head * dim);
}

template <typename Simd>
void CombineItems(const AttentionArgs& args) {
  const int64_t heads = args.num_heads / args.layer.num_kv_heads;
  for (int64_t item = args.item_begin; item < args.item_end; ++item) {
    const int64_t token = item / args.layer.num_kv_heads;
    const int64_t first = item % args.layer.num_kv_heads * heads;
    for (int64_t head = first; head < first + heads; ++head) CombineHead<Simd>(args, token, head);
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_ATTENTION_TILES_H_
