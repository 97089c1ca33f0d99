// Attention of several queries of one sequence at a time: each block of 16 keys is transposed once,
// so that 16 scores of a query are one register, and is shared by the query heads of its KV head
// and by consecutive tokens. What a query computes does not depend on the others of its tile.
#include <algorithm>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/keys_avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kLargestDim = 512;   // of a head; larger ones take the function of avx2
constexpr int64_t kTileFloats = 8192;  // of the queries of a tile, and of their outputs
constexpr int64_t kLargestTile = 128;  // queries
constexpr int kGroup = 6;              // queries whose sums share each load of keys and values
constexpr int64_t kVectors = 4;        // of 16 channels, that share each broadcast of a weight
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
  alignas(64) float out[kTileFloats];                    // weighted sums of values
  alignas(64) float sums[kLargestTile][kKvBlockTokens];  // of weights, lane by lane
  alignas(64) float weights[kGroup][kKvBlockTokens];
  float corrections[kGroup];  // by which older sums shrink
  float largest[kLargestTile];
  int64_t first_key;  // of the block
  int64_t ahead;      // bytes from a block's keys to those that follow
};

// Sixteen scores of each of a group of queries, from even and odd channels in a chain each.
template <KvType type, int queries>
void Score(const typename Element<type>::Bits (*panel)[kKvBlockTokens], const float* query,
           const Tile& tile, __m512* scores) {
  __m512 even[queries];
  __m512 odd[queries];
  for (int q = 0; q < queries; ++q) even[q] = odd[q] = _mm512_setzero_ps();
  for (int64_t i = 0; i < tile.dim; i += 2) {
    const __m512 two[] = {Element<type>::Load(panel[i]), Element<type>::Load(panel[i + 1])};
#pragma GCC unroll 6
    for (int q = 0; q < queries; ++q) {
      const float* x = query + q * tile.padded_dim + i;
      even[q] = _mm512_fmadd_ps(_mm512_set1_ps(x[0]), two[0], even[q]);
      odd[q] = _mm512_fmadd_ps(_mm512_set1_ps(x[1]), two[1], odd[q]);
    }
  }
  for (int q = 0; q < queries; ++q) scores[q] = _mm512_add_ps(even[q], odd[q]);
}

// What ALiBi adds to a query's scores of a block's keys.
__m512 Biases(const AttentionArgs& args, int64_t query, const Tile& tile) {
  const int64_t token = tile.first_token + query / tile.heads % tile.tokens;
  const int64_t kv_head = tile.first_kv_head + query / (tile.heads * tile.tokens);
  const int64_t head =
      kv_head * (args.num_heads / args.layer.num_kv_heads) + tile.first_head + query % tile.heads;
  const int64_t own = args.lengths[token] - 1;
  const __m512 slope = _mm512_set1_ps(args.slopes[head]);
  const __m512 lanes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto from = [&](int64_t key) {
    return _mm512_add_ps(_mm512_set1_ps(static_cast<float>(tile.first_key - key)), lanes);
  };
  if (!args.slopes_in_bf16) return _mm512_mul_ps(slope, from(own));
  const __m512 index = RoundToBf16(_mm512_set1_ps(static_cast<float>(own)));
  const __m512 bias = _mm512_sub_ps(RoundToBf16(_mm512_mul_ps(slope, RoundToBf16(from(0)))),
                                    RoundToBf16(_mm512_mul_ps(slope, index)));
  return _mm512_mul_ps(_mm512_set1_ps(args.scale), bias);
}

// Turns a query's scores of a block's keys in `seen` into weights.
void Weigh(const AttentionArgs& args, __m512 score, __mmask16 seen, int64_t query, int64_t in_group,
           Tile* tile) {
  score = _mm512_mul_ps(score, _mm512_set1_ps(args.scale));
  if (args.slopes != nullptr) score = _mm512_add_ps(score, Biases(args, query, *tile));
  if (args.softcap != 0) score = SoftCap(score, args.softcap);
  score = _mm512_mask_mov_ps(_mm512_set1_ps(-kInfinity), seen, score);
  const float before = tile->largest[query];
  __m512 sums = _mm512_load_ps(tile->sums[query]);
  float correction = 1;
  if (_mm512_cmp_ps_mask(score, _mm512_set1_ps(before), _CMP_GT_OQ) != 0) {
    const float largest = MaxLanes(_mm512_max_ps(score, _mm512_set1_ps(before)));
    tile->largest[query] = largest;
    correction = before == -kInfinity ? 0 : _mm512_cvtss_f32(Exp(_mm512_set1_ps(before - largest)));
    sums = _mm512_mul_ps(sums, _mm512_set1_ps(correction));
  }
  const __m512 weights = Exp(_mm512_sub_ps(score, _mm512_set1_ps(tile->largest[query])));
  _mm512_store_ps(tile->sums[query], _mm512_add_ps(sums, weights));
  _mm512_store_ps(tile->weights[in_group], weights);
  tile->corrections[in_group] = correction;
}

// Some vectors of the output of a group of queries, from the values of keys [first, end).
template <KvType type, int queries, int vectors>
void AddValues(const typename Element<type>::Bits* values, int64_t first, int64_t end,
               __mmask16 last, float* out, const Tile& tile) {
  __m512 sums[queries][vectors];
#pragma GCC unroll 6
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      sums[q][v] = _mm512_mul_ps(_mm512_load_ps(out + q * tile.padded_dim + 16 * v),
                                 _mm512_set1_ps(tile.corrections[q]));
    }
  }
  for (int64_t j = first; j < end; ++j) {
    const auto* row = values + j * tile.dim;
    __m512 value[vectors];
    for (int64_t at = 0; at < 16 * vectors; at += kLineElements<type>) {
      Prefetch(row + at, tile.ahead);
    }
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      value[v] = v + 1 < vectors ? Element<type>::Load(row + 16 * v)
                                 : Element<type>::Load(row + 16 * v, last);
    }
#pragma GCC unroll 6
    for (int q = 0; q < queries; ++q) {
      const __m512 weight = _mm512_set1_ps(tile.weights[q][j]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[q][v] = _mm512_fmadd_ps(weight, value[v], sums[q][v]);
    }
  }
#pragma GCC unroll 6
  for (int q = 0; q < queries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) {
      _mm512_store_ps(out + q * tile.padded_dim + 16 * v, sums[q][v]);
    }
  }
}

// One block of keys and values for a group of queries that see its keys [first, end).
template <KvType type, int queries>
void AttendGroup(const AttentionArgs& args, const typename Element<type>::Bits (*panel)[16],
                 const typename Element<type>::Bits* values, int64_t query, int64_t first,
                 int64_t end, Tile* tile) {
  __m512 scores[queries];
  Score<type, queries>(panel, tile->queries + query * tile->padded_dim, *tile, scores);
  const auto seen = static_cast<__mmask16>(FirstLanes(end) & ~FirstLanes(first));
  for (int q = 0; q < queries; ++q) Weigh(args, scores[q], seen, query + q, q, tile);
  float* out = tile->out + query * tile->padded_dim;
  int64_t i = 0;
  for (; i + 16 * kVectors <= tile->padded_dim; i += 16 * kVectors) {
    AddValues<type, queries, kVectors>(values + i, first, end, FirstLanes(tile->dim - i - 48),
                                       out + i, *tile);
  }
  for (; i < tile->padded_dim; i += 16) {
    AddValues<type, queries, 1>(values + i, first, end, FirstLanes(tile->dim - i), out + i, *tile);
  }
}

template <KvType type>
void AttendQueries(const AttentionArgs& args, const typename Element<type>::Bits (*panel)[16],
                   const typename Element<type>::Bits* values, int64_t begin, int64_t end,
                   int64_t first_key, int64_t end_key, Tile* tile) {
  using Function = decltype(&AttendGroup<type, 1>);
  static constexpr Function kFunctions[kGroup] = {AttendGroup<type, 1>, AttendGroup<type, 2>,
                                                  AttendGroup<type, 3>, AttendGroup<type, 4>,
                                                  AttendGroup<type, 5>, AttendGroup<type, 6>};
  // As few groups as possible, of nearly equal size.
  for (int64_t groups = (end - begin + kGroup - 1) / kGroup; groups > 0; --groups) {
    const int64_t count = (end - begin + groups - 1) / groups;
    kFunctions[count - 1](args, panel, values, begin, first_key, end_key, tile);
    begin += count;
  }
}

// Calls body(query, place of its head in a row of the arguments, token) for all queries of a tile.
template <typename Body>
void ForQueries(const AttentionArgs& args, const Tile& tile, const Body& body) {
  const int64_t heads = args.num_heads / args.layer.num_kv_heads;
  int64_t query = 0;
  for (int64_t kv = 0; kv < tile.kv_heads; ++kv) {
    for (int64_t t = 0; t < tile.tokens; ++t) {
      for (int64_t head = 0; head < tile.heads; ++head, ++query) {
        body(query, ((tile.first_kv_head + kv) * heads + tile.first_head + head) * tile.dim,
             tile.first_token + t);
      }
    }
  }
}

void LoadQueries(const AttentionArgs& args, Tile* tile) {
  ForQueries(args, *tile, [&](int64_t query, int64_t place, int64_t token) {
    const float* x = args.query + token * args.query_stride + place;
    for (int64_t i = 0; i < tile->padded_dim; i += 16) {
      _mm512_store_ps(tile->queries + query * tile->padded_dim + i,
                      _mm512_maskz_loadu_ps(FirstLanes(tile->dim - i), x + i));
    }
  });
  const int64_t queries = tile->kv_heads * tile->tokens * tile->heads;
  std::fill_n(tile->out, queries * tile->padded_dim, 0.0f);
  std::fill_n(tile->sums[0], queries * kKvBlockTokens, 0.0f);
  std::fill_n(tile->largest, queries, -kInfinity);
}

void StoreOutputs(const AttentionArgs& args, const Tile& tile) {
  ForQueries(args, tile, [&](int64_t query, int64_t place, int64_t token) {
    float* y = args.out + token * args.out_stride + place;
    const __m512 sum = _mm512_set1_ps(SumLanes(_mm512_load_ps(tile.sums[query])));
    for (int64_t i = 0; i < tile.dim; i += 16) {
      const __m512 out = _mm512_load_ps(tile.out + query * tile.padded_dim + i);
      _mm512_mask_storeu_ps(y + i, FirstLanes(tile.dim - i), _mm512_div_ps(out, sum));
    }
  });
}

// The keys that a token sees, by their index.
struct Span {
  int64_t oldest, end;
};

Span KeysOf(const AttentionArgs& args, int64_t token) {
  const int64_t length = args.lengths[token];
  return {args.window == 0 ? 0 : std::max<int64_t>(length - args.window, 0), length};
}

// One block of one KV head, whose first key has the index `begin`.
template <KvType type>
void AttendBlock(const AttentionArgs& args, const std::byte* keys, int64_t begin, int64_t kv_head,
                 const Span& shared, Tile* tile) {
  using Bits = typename Element<type>::Bits;
  alignas(64) Bits panel[kLargestDim][kKvBlockTokens];
  tile->first_key = begin;
  Transpose(reinterpret_cast<const Bits*>(keys), tile->dim, tile->ahead, panel);
  const Bits* values = reinterpret_cast<const Bits*>(keys) + kKvBlockTokens * tile->dim;
  const int64_t query = kv_head * tile->tokens * tile->heads;
  if (begin >= shared.oldest && begin + kKvBlockTokens <= shared.end) {
    AttendQueries<type>(args, panel, values, query, query + tile->tokens * tile->heads, 0,
                        kKvBlockTokens, tile);
    return;
  }
  for (int64_t t = 0; t < tile->tokens; ++t) {
    const Span span = KeysOf(args, tile->first_token + t);
    const int64_t first = std::max<int64_t>(span.oldest - begin, 0);
    const int64_t end = std::min(kKvBlockTokens, span.end - begin);
    if (first >= end) continue;
    AttendQueries<type>(args, panel, values, query + t * tile->heads, query + (t + 1) * tile->heads,
                        first, end, tile);
  }
}

template <KvType type>
void AttendTile(const AttentionArgs& args, Tile* tile) {
  LoadQueries(args, tile);
  Span all = KeysOf(args, tile->first_token);  // keys that any token sees
  Span shared = all;                           // keys that every token sees
  for (int64_t t = 1; t < tile->tokens; ++t) {
    const Span keys = KeysOf(args, tile->first_token + t);
    all = {std::min(all.oldest, keys.oldest), std::max(all.end, keys.end)};
    shared = {std::max(shared.oldest, keys.oldest), std::min(shared.end, keys.end)};
  }
  const KvLayer& layer = args.layer;
  const int64_t head_bytes = 2 * kKvBlockTokens * tile->dim * KvTypeBytes(type);
  const uint32_t* table = args.block_tables[tile->first_token];
  for (int64_t begin = all.oldest / kKvBlockTokens * kKvBlockTokens; begin < all.end;
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
      AttendBlock<type>(args, keys, begin, kv, shared, tile);
    }
  }
  StoreOutputs(args, *tile);
}

// KV heads [kv_begin, kv_end) of tokens [first, end), in tiles of neighbours with one block table.
void AttendTokens(const AttentionArgs& args, int64_t kv_begin, int64_t kv_end, int64_t first,
                  int64_t end) {
  Tile tile;
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
    for (tile.first_kv_head = kv_begin; tile.first_kv_head < kv_end;
         tile.first_kv_head += kv_at_once) {
      tile.kv_heads = std::min(kv_at_once, kv_end - tile.first_kv_head);
      for (tile.first_head = 0; tile.first_head < heads; tile.first_head += heads_at_once) {
        tile.heads = std::min(heads_at_once, heads - tile.first_head);
        if (args.layer.type == KvType::kF32) {
          AttendTile<KvType::kF32>(args, &tile);
        } else {
          AttendTile<KvType::kF16>(args, &tile);
        }
      }
    }
    first += tile.tokens;
  }
}

}  // namespace

void AttentionAvx512(const AttentionArgs& args, CUstream_st* stream) {
  if (args.layer.head_dim > kLargestDim) return AttentionAvx2(args, stream);
  const int64_t kv_heads = args.layer.num_kv_heads;
  // Whole tokens, and before and after them the parts of one.
  for (int64_t item = args.item_begin; item < args.item_end;) {
    const int64_t token = item / kv_heads;
    const int64_t kv_begin = item % kv_heads;
    const bool whole = kv_begin == 0 && args.item_end - item >= kv_heads;
    const int64_t tokens = whole ? (args.item_end - item) / kv_heads : 1;
    const int64_t kv_end = whole ? kv_heads : std::min(kv_heads, kv_begin + args.item_end - item);
    AttendTokens(args, kv_begin, kv_end, token, token + tokens);
    item += whole ? tokens * kv_heads : kv_end - kv_begin;
  }
}

}  // namespace sluice
