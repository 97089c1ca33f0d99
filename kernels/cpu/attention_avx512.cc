// Attention of several queries of one sequence at a time: each block of 16 keys is transposed once,
// so that 16 scores of a query are one register, and is shared by the query heads of its KV head
// and by consecutive tokens. What a query computes does not depend on the others of its tile.
#include <algorithm>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kLargestDim = 512;   // of a head; larger ones take the function of avx2
constexpr int64_t kTileFloats = 8192;  // of the queries of a tile, and of their outputs
constexpr int64_t kLargestTile = 128;  // queries
constexpr int kGroup = 6;              // queries whose sums share each load of keys and values
constexpr int64_t kVectors = 4;        // of 16 channels, that share each broadcast of a weight
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <KvType type>
struct Element;
template <>
struct Element<KvType::kF32> {
  using Bits = float;
  static __m512 Load(const float* p) { return _mm512_loadu_ps(p); }
  static __m512 Load(const float* p, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, p); }
};
template <>
struct Element<KvType::kF16> {
  using Bits = uint16_t;
  static __m512 Load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static __m512 Load(const uint16_t* p, __mmask16 mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
  }
};

// The queries of `tokens` consecutive tokens with one block table, `heads` of each.
struct Tile {
  int64_t first_token, tokens;
  int64_t kv_head;
  int64_t first_head, heads;
  int64_t dim;
  int64_t padded_dim;  // to a multiple of 16; the queries are zero beyond dim
  alignas(64) float queries[kTileFloats];
  alignas(64) float out[kTileFloats];                    // weighted sums of values
  alignas(64) float sums[kLargestTile][kKvBlockTokens];  // of weights, lane by lane
  alignas(64) float weights[kGroup][kKvBlockTokens];
  float corrections[kGroup];  // by which older sums shrink
  float largest[kLargestTile];
};

// panel[i][j] = channel i of key j, zero for channels from dim to a multiple of 32.
void Transpose(const uint16_t* keys, int64_t dim, uint16_t (*panel)[kKvBlockTokens]) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (int64_t begin = 0; begin < dim; begin += 32, panel += 32) {
    const int64_t left = std::min<int64_t>(dim - begin, 32);
    const auto mask = static_cast<__mmask32>((uint64_t{1} << left) - 1);
    __m512i a[16];
    __m512i b[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) a[j] = _mm512_maskz_loadu_epi16(mask, keys + j * dim + begin);
      // Pairs of keys, then fours, then eights; register i then has channels i, i + 8, i + 16, i +
      // 24 (modulo 8: the order of i), in its four lanes.
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      b[2 * j] = _mm512_unpacklo_epi16(a[2 * j], a[2 * j + 1]);
      b[2 * j + 1] = _mm512_unpackhi_epi16(a[2 * j], a[2 * j + 1]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        a[4 * j + 2 * half] = _mm512_unpacklo_epi32(b[4 * j + half], b[4 * j + 2 + half]);
        a[4 * j + 2 * half + 1] = _mm512_unpackhi_epi32(b[4 * j + half], b[4 * j + 2 + half]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        const auto eight = [&](int j) {
          return odd == 0 ? _mm512_unpacklo_epi64(a[8 * j + i], a[8 * j + 4 + i])
                          : _mm512_unpackhi_epi64(a[8 * j + i], a[8 * j + 4 + i]);
        };
        const __m512i low = eight(0);
        const __m512i high = eight(1);
        const auto store = [&](int64_t channel, __m512i two) {
          _mm256_store_si256(reinterpret_cast<__m256i*>(panel[channel]),
                             _mm512_castsi512_si256(two));
          _mm256_store_si256(reinterpret_cast<__m256i*>(panel[channel + 8]),
                             _mm512_extracti64x4_epi64(two, 1));
        };
        store(2 * i + odd, _mm512_permutex2var_epi64(low, first, high));
        store(2 * i + odd + 16, _mm512_permutex2var_epi64(low, second, high));
      }
    }
  }
}

void Transpose(const float* keys, int64_t dim, float (*panel)[kKvBlockTokens]) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(dim)));
  for (int64_t i = 0; i < dim; ++i) {
    _mm512_store_ps(panel[i], _mm512_i32gather_ps(places, keys + i, sizeof(float)));
  }
  if (dim % 2 != 0) _mm512_store_ps(panel[dim], _mm512_setzero_ps());
}

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

// cap tanh(score / cap); tanh(x) = 1 - 2 / (exp(2x) + 1), which is off by a few epsilons, not by a
// relative few, and scores matter absolutely.
inline __m512 SoftCap(__m512 score, float cap) {
  const __m512 e = Exp(_mm512_mul_ps(score, _mm512_set1_ps(2 / cap)));
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 part = _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one));
  return _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(one, part));
}

// Turns a query's scores of a block's keys in `seen` into weights.
void Weigh(const AttentionArgs& args, __m512 score, __mmask16 seen, int64_t query, int64_t in_group,
           Tile* tile) {
  score = _mm512_mul_ps(score, _mm512_set1_ps(args.scale));
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

void LoadQueries(const AttentionArgs& args, Tile* tile) {
  float* query = tile->queries;
  for (int64_t t = 0; t < tile->tokens; ++t) {
    const float* x =
        args.query + (tile->first_token + t) * args.query_stride +
        (tile->kv_head * (args.num_heads / args.layer.num_kv_heads) + tile->first_head) * tile->dim;
    for (int64_t head = 0; head < tile->heads; ++head, query += tile->padded_dim) {
      for (int64_t i = 0; i < tile->padded_dim; i += 16) {
        _mm512_store_ps(query + i,
                        _mm512_maskz_loadu_ps(FirstLanes(tile->dim - i), x + head * tile->dim + i));
      }
    }
  }
  const int64_t queries = tile->tokens * tile->heads;
  std::fill_n(tile->out, queries * tile->padded_dim, 0.0f);
  std::fill_n(tile->sums[0], queries * kKvBlockTokens, 0.0f);
  std::fill_n(tile->largest, queries, -kInfinity);
}

void StoreOutputs(const AttentionArgs& args, const Tile& tile) {
  int64_t query = 0;
  for (int64_t t = 0; t < tile.tokens; ++t) {
    float* y =
        args.out + (tile.first_token + t) * args.out_stride +
        (tile.kv_head * (args.num_heads / args.layer.num_kv_heads) + tile.first_head) * tile.dim;
    for (int64_t head = 0; head < tile.heads; ++head, ++query) {
      const __m512 sum = _mm512_set1_ps(SumLanes(_mm512_load_ps(tile.sums[query])));
      for (int64_t i = 0; i < tile.dim; i += 16) {
        const __m512 out = _mm512_load_ps(tile.out + query * tile.padded_dim + i);
        _mm512_mask_storeu_ps(y + head * tile.dim + i, FirstLanes(tile.dim - i),
                              _mm512_div_ps(out, sum));
      }
    }
  }
}

// The keys that a token sees, by their index.
struct Span {
  int64_t oldest, end;
};

Span KeysOf(const AttentionArgs& args, int64_t token) {
  const int64_t length = args.lengths[token];
  return {args.window == 0 ? 0 : std::max<int64_t>(length - args.window, 0), length};
}

template <KvType type>
void AttendTile(const AttentionArgs& args, Tile* tile) {
  using Bits = typename Element<type>::Bits;
  alignas(64) Bits panel[kLargestDim][kKvBlockTokens];
  LoadQueries(args, tile);
  Span all = KeysOf(args, tile->first_token);  // keys that any token sees
  Span shared = all;                           // keys that every token sees
  for (int64_t t = 1; t < tile->tokens; ++t) {
    const Span keys = KeysOf(args, tile->first_token + t);
    all = {std::min(all.oldest, keys.oldest), std::max(all.end, keys.end)};
    shared = {std::max(shared.oldest, keys.oldest), std::min(shared.end, keys.end)};
  }
  const KvLayer& layer = args.layer;
  const int64_t half_bytes = kKvBlockTokens * tile->dim * KvTypeBytes(type);
  const uint32_t* table = args.block_tables[tile->first_token];
  const auto place = [&](int64_t block) {
    return layer.blocks + table[block] * layer.block_bytes + tile->kv_head * 2 * half_bytes;
  };
  for (int64_t begin = all.oldest / kKvBlockTokens * kKvBlockTokens; begin < all.end;
       begin += kKvBlockTokens) {
    const std::byte* keys = place(begin / kKvBlockTokens);
    if (begin + kKvBlockTokens < all.end) {
      const auto* next = reinterpret_cast<const char*>(place(begin / kKvBlockTokens + 1));
      for (int64_t at = 0; at < 2 * half_bytes; at += 64) _mm_prefetch(next + at, _MM_HINT_T0);
    }
    const auto* values = reinterpret_cast<const Bits*>(keys + half_bytes);
    Transpose(reinterpret_cast<const Bits*>(keys), tile->dim, panel);
    if (begin >= shared.oldest && begin + kKvBlockTokens <= shared.end) {
      AttendQueries<type>(args, panel, values, 0, tile->tokens * tile->heads, 0, kKvBlockTokens,
                          tile);
      continue;
    }
    for (int64_t t = 0; t < tile->tokens; ++t) {
      const Span span = KeysOf(args, tile->first_token + t);
      const int64_t first = std::max<int64_t>(span.oldest - begin, 0);
      const int64_t end = std::min(kKvBlockTokens, span.end - begin);
      if (first >= end) continue;
      AttendQueries<type>(args, panel, values, t * tile->heads, (t + 1) * tile->heads, first, end,
                          tile);
    }
  }
  StoreOutputs(args, *tile);
}

// Tokens [first, end) of one KV head, in tiles of neighbours with one block table.
void AttendTokens(const AttentionArgs& args, int64_t kv_head, int64_t first, int64_t end) {
  Tile tile;
  tile.kv_head = kv_head;
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
    for (tile.first_head = 0; tile.first_head < heads; tile.first_head += heads_at_once) {
      tile.heads = std::min(heads_at_once, heads - tile.first_head);
      if (args.layer.type == KvType::kF32) {
        AttendTile<KvType::kF32>(args, &tile);
      } else {
        AttendTile<KvType::kF16>(args, &tile);
      }
    }
    first += tile.tokens;
  }
}

}  // namespace

void AttentionAvx512(const AttentionArgs& args, CUstream_st* stream) {
  if (args.layer.head_dim > kLargestDim) return AttentionAvx2(args, stream);
  const int64_t kv_heads = args.layer.num_kv_heads;
  for (int64_t kv_head = 0; kv_head < kv_heads; ++kv_head) {
    // Tokens whose item with this KV head lies in the range.
    const int64_t first = (args.item_begin - kv_head + kv_heads - 1) / kv_heads;
    const int64_t end = (args.item_end - kv_head + kv_heads - 1) / kv_heads;
    AttendTokens(args, kv_head, first, end);
  }
}

}  // namespace sluice
