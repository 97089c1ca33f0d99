#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

constexpr int64_t kHeads = 4;  // query heads that share each key and value that is loaded
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Up to four query heads of one KV head, and their softmax so far.
struct Heads {
  int64_t first;  // query head
  int64_t count;
  int64_t dim;
  const float* query;  // [count, dim]
  float* out;          // [count, dim]: weighted sum of values
  float largest[kHeads];
  alignas(32) float sums[kHeads][8];                  // of weights, lane by lane
  alignas(32) float weights[kHeads][kKvBlockTokens];  // first scores, then weights
  float corrections[kHeads];
};

template <KvType type>
inline __m256 Load8(const std::byte* p) {
  if constexpr (type == KvType::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

template <KvType type>
inline float Load1(const std::byte* p) {
  if constexpr (type == KvType::kF32) {
    float value;
    std::memcpy(&value, p, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _cvtsh_ss(bits);
}

// Scores of keys [first, end): eight chains over the channels, then those beyond a multiple of
// eight.
template <KvType type, int heads>
void Score(const std::byte* keys, int64_t first, int64_t end, float scale, Heads* h) {
  const int64_t vectors = h->dim / 8 * 8;
  for (int64_t j = first; j < end; ++j) {
    const std::byte* key = keys + j * h->dim * KvTypeBytes(type);
    __m256 dots[heads];
    for (int n = 0; n < heads; ++n) dots[n] = _mm256_setzero_ps();
    for (int64_t i = 0; i < vectors; i += 8) {
      const __m256 k = Load8<type>(key + i * KvTypeBytes(type));
      for (int n = 0; n < heads; ++n) {
        dots[n] = _mm256_fmadd_ps(_mm256_loadu_ps(h->query + n * h->dim + i), k, dots[n]);
      }
    }
    for (int n = 0; n < heads; ++n) {
      float dot = SumLanes(dots[n]);
      for (int64_t i = vectors; i < h->dim; ++i) {
        dot += h->query[n * h->dim + i] * Load1<type>(key + i * KvTypeBytes(type));
      }
      h->weights[n][j] = scale * dot;
    }
  }
}

// ALiBi, for all keys of the partition that begins with the key `begin`, by the token `own`.
void AddBiases(const AttentionArgs& args, int64_t begin, int64_t own, Heads* h) {
  const __m256 lanes = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
  for (int64_t n = 0; n < h->count; ++n) {
    const __m256 slope = _mm256_set1_ps(args.slopes[h->first + n]);
    for (int64_t j = 0; j < kKvBlockTokens; j += 8) {
      const int64_t from = args.slopes_in_bf16 ? 0 : own;
      const __m256 key = _mm256_add_ps(_mm256_set1_ps(static_cast<float>(begin + j - from)), lanes);
      __m256 bias = _mm256_mul_ps(slope, key);
      if (args.slopes_in_bf16) {
        const __m256 index = RoundToBf16(_mm256_set1_ps(static_cast<float>(own)));
        bias = _mm256_sub_ps(RoundToBf16(_mm256_mul_ps(slope, RoundToBf16(key))),
                             RoundToBf16(_mm256_mul_ps(slope, index)));
        bias = _mm256_mul_ps(_mm256_set1_ps(args.scale), bias);
      }
      float* scores = h->weights[n] + j;
      _mm256_store_ps(scores, _mm256_add_ps(_mm256_load_ps(scores), bias));
    }
  }
}

// Turns the scores of a partition's keys [first, end) into weights, and says by how much older sums
// shrink.
void Weigh(int64_t first, int64_t end, float softcap, bool oldest, Heads* h) {
  for (int64_t n = 0; n < h->count; ++n) {
    float* weights = h->weights[n];
    if (softcap != 0) {
      std::fill(weights, weights + first, 0.0f);
      std::fill(weights + end, weights + kKvBlockTokens, 0.0f);
      for (int half = 0; half < 16; half += 8) {
        _mm256_store_ps(weights + half, SoftCap(_mm256_load_ps(weights + half), softcap));
      }
    }
    std::fill(weights, weights + first, -kInfinity);
    std::fill(weights + end, weights + kKvBlockTokens, -kInfinity);
    __m256 low = _mm256_load_ps(weights);
    __m256 high = _mm256_load_ps(weights + 8);
    const float before = h->largest[n];
    h->largest[n] = std::max(before, MaxLanes(_mm256_max_ps(low, high)));
    const __m256 largest = _mm256_set1_ps(h->largest[n]);
    low = Exp(_mm256_sub_ps(low, largest));
    high = Exp(_mm256_sub_ps(high, largest));
    _mm256_store_ps(weights, low);
    _mm256_store_ps(weights + 8, high);
    const __m256 shrink =
        oldest ? _mm256_setzero_ps() : Exp(_mm256_set1_ps(before - h->largest[n]));
    h->corrections[n] = _mm256_cvtss_f32(shrink);
    const __m256 sums = _mm256_mul_ps(_mm256_load_ps(h->sums[n]), shrink);
    _mm256_store_ps(h->sums[n], _mm256_add_ps(sums, _mm256_add_ps(low, high)));
  }
}

template <KvType type, int heads>
void AddValues(const std::byte* values, int64_t first, int64_t end, Heads* h) {
  const int64_t row_bytes = h->dim * KvTypeBytes(type);
  int64_t i = 0;
  for (; i + 8 <= h->dim; i += 8) {
    __m256 sums[heads];
    for (int n = 0; n < heads; ++n) {
      sums[n] = _mm256_mul_ps(_mm256_loadu_ps(h->out + n * h->dim + i),
                              _mm256_set1_ps(h->corrections[n]));
    }
    for (int64_t j = first; j < end; ++j) {
      const __m256 v = Load8<type>(values + j * row_bytes + i * KvTypeBytes(type));
      for (int n = 0; n < heads; ++n) {
        sums[n] = _mm256_fmadd_ps(_mm256_broadcast_ss(&h->weights[n][j]), v, sums[n]);
      }
    }
    for (int n = 0; n < heads; ++n) _mm256_storeu_ps(h->out + n * h->dim + i, sums[n]);
  }
  for (; i < h->dim; ++i) {
    for (int n = 0; n < heads; ++n) {
      float sum = h->out[n * h->dim + i] * h->corrections[n];
      for (int64_t j = first; j < end; ++j) {
        sum += h->weights[n][j] * Load1<type>(values + j * row_bytes + i * KvTypeBytes(type));
      }
      h->out[n * h->dim + i] = sum;
    }
  }
}

template <KvType type, int heads>
void Attend(const AttentionArgs& args, int64_t token, int64_t kv_head, Heads* h) {
  const KvLayer& layer = args.layer;
  const int64_t half_bytes = kKvBlockTokens * h->dim * KvTypeBytes(type);
  const int64_t length = args.lengths[token];
  std::fill_n(h->out, heads * h->dim, 0.0f);
  std::fill_n(h->largest, kHeads, -kInfinity);
  std::fill_n(&h->sums[0][0], kHeads * 8, 0.0f);
  const int64_t oldest = args.window == 0 ? 0 : std::max<int64_t>(length - args.window, 0);
  for (int64_t begin = oldest / kKvBlockTokens * kKvBlockTokens; begin < length;
       begin += kKvBlockTokens) {
    const int64_t first = std::max<int64_t>(oldest - begin, 0);
    const int64_t end = std::min(kKvBlockTokens, length - begin);
    const int64_t block = args.block_tables[token][begin / kKvBlockTokens];
    const std::byte* keys = layer.blocks + block * layer.block_bytes + kv_head * 2 * half_bytes;
    Score<type, heads>(keys, first, end, args.scale, h);
    if (args.slopes != nullptr) AddBiases(args, begin, length - 1, h);
    Weigh(first, end, args.softcap, begin <= oldest, h);
    AddValues<type, heads>(keys + half_bytes, first, end, h);
  }
  for (int n = 0; n < heads; ++n) {
    const float sum = SumLanes(_mm256_load_ps(h->sums[n]));
    for (int64_t i = 0; i < h->dim; ++i) h->out[n * h->dim + i] /= sum;
  }
}

template <KvType type>
void AttendHeads(const AttentionArgs& args, int64_t token, int64_t kv_head, Heads* h) {
  switch (h->count) {
    case 1:
      return Attend<type, 1>(args, token, kv_head, h);
    case 2:
      return Attend<type, 2>(args, token, kv_head, h);
    case 3:
      return Attend<type, 3>(args, token, kv_head, h);
    default:
      return Attend<type, 4>(args, token, kv_head, h);
  }
}

}  // namespace

void AttentionAvx2(const AttentionArgs& args, CUstream_st*) {
  const int64_t dim = args.layer.head_dim;
  const int64_t group = args.num_heads / args.layer.num_kv_heads;  // query heads of one KV head
  for (int64_t item = args.item_begin; item < args.item_end; ++item) {
    const int64_t token = item / args.layer.num_kv_heads;
    const int64_t kv_head = item % args.layer.num_kv_heads;
    for (int64_t first = 0; first < group; first += kHeads) {
      const int64_t head = kv_head * group + first;
      Heads h;
      h.first = head;
      h.count = std::min(kHeads, group - first);
      h.dim = dim;
      h.query = args.query + token * args.query_stride + head * dim;
      h.out = args.out + token * args.out_stride + head * dim;
      if (args.layer.type == KvType::kF32) {
        AttendHeads<KvType::kF32>(args, token, kv_head, &h);
      } else {
        AttendHeads<KvType::kF16>(args, token, kv_head, &h);
      }
    }
  }
}

}  // namespace sluice
