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
#include <cstdint>
#include <limits>

#include "kernels/cpu/attention_block.h"
#include "kernels/cpu/attention_keys.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

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
