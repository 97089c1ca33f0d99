// Sixteen floats in two registers, for attention_tiles.h. Only for files compiled for AVX2;
// everything is local to the file that includes it (vector_avx2.h).
#ifndef SLUICE_KERNELS_CPU_LANES_AVX2_H_
#define SLUICE_KERNELS_CPU_LANES_AVX2_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/vector_avx2.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

// What each does: lanes_avx512.h.
struct Lanes {
  struct Vector {
    __m256 low, high;
  };
  static constexpr int kScoreQueries = 3;
  static constexpr int kSums = 6;
  template <typename Bits>
  using PanelBits = float;
  static constexpr int64_t kWidenQueries = 12;

  static Vector Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Vector Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Vector Load(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
  }
  static Vector LoadFirst(const float* p, int64_t count) {
    if (count >= 16) return Load(p);
    const float* high = p + std::min<int64_t>(count, 8);  // not beyond what is there
    return {_mm256_maskload_ps(p, LaneMask(count)), _mm256_maskload_ps(high, LaneMask(count - 8))};
  }
  static Vector LoadFirst(const uint16_t* p, int64_t count) {
    if (count >= 16) return Load(p);
    uint16_t some[16] = {};
    std::memcpy(some, p, static_cast<size_t>(count) * sizeof(some[0]));
    return Load(some);
  }
  static void Store(float* p, Vector x) {
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
  }
  static void StoreFirst(float* p, Vector x, int64_t count) {
    if (count >= 16) return Store(p, x);
    _mm256_maskstore_ps(p, LaneMask(count), x.low);
    _mm256_maskstore_ps(p + std::min<int64_t>(count, 8), LaneMask(count - 8), x.high);
  }
  static Vector Add(Vector a, Vector b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static Vector Sub(Vector a, Vector b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static Vector Mul(Vector a, Vector b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static Vector Div(Vector a, Vector b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static Vector Max(Vector a, Vector b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static Vector Fma(Vector a, Vector b, Vector c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static Vector Exp(Vector x) { return {sluice::Exp(x.low), sluice::Exp(x.high)}; }
  static Vector SoftCap(Vector x, float cap) {
    return {sluice::SoftCap(x.low, cap), sluice::SoftCap(x.high, cap)};
  }
  static Vector RoundToBf16(Vector x) {
    return {sluice::RoundToBf16(x.low), sluice::RoundToBf16(x.high)};
  }
  static Vector Indices() {
    return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
  }
  static float First(Vector x) { return _mm256_cvtss_f32(x.low); }
  static float SumLanes(Vector x) { return sluice::SumLanes(_mm256_add_ps(x.low, x.high)); }
  static float MaxLanes(Vector x) { return sluice::MaxLanes(_mm256_max_ps(x.low, x.high)); }
  static Vector Only(Vector x, int64_t begin, int64_t end, float other) {
    const auto only = [&](__m256 half, int64_t first) {
      const __m256i seen = _mm256_andnot_si256(LaneMask(begin - first), LaneMask(end - first));
      return _mm256_blendv_ps(_mm256_set1_ps(other), half, _mm256_castsi256_ps(seen));
    };
    return {only(x.low, 0), only(x.high, 8)};
  }
  static bool AnyGreater(Vector x, float than) {
    const __m256 least = _mm256_set1_ps(than);
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps(x.low, least, _CMP_GT_OQ),
                                           _mm256_cmp_ps(x.high, least, _CMP_GT_OQ))) != 0;
  }
  static void Prefetch(const void* p, int64_t ahead) {
    _mm_prefetch(static_cast<const char*>(p) + ahead, _MM_HINT_T1);
  }
  static void Transpose(const uint16_t* keys, int64_t dim, int64_t ahead,
                        float (*panel)[kKvBlockTokens]);
  static void Transpose(const float* keys, int64_t dim, int64_t ahead,
                        float (*panel)[kKvBlockTokens]);
};

// Eight channels at a time: keys j and j + 8 in the halves of a register, whose pairs, fours and
// eights are then put together.
inline void Lanes::Transpose(const uint16_t* keys, int64_t dim, int64_t ahead,
                             float (*panel)[kKvBlockTokens]) {
  for (int64_t begin = 0; begin < dim; begin += 8, panel += 8) {
    const int64_t left = std::min<int64_t>(dim - begin, 8);
    const auto load = [&](int64_t j) {
      const uint16_t* p = keys + j * dim + begin;
      if (begin % 32 == 0) Prefetch(p, ahead);
      if (left == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      uint16_t some[8] = {};
      std::memcpy(some, p, static_cast<size_t>(left) * sizeof(some[0]));
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(some));
    };
    __m256i a[8];
    __m256i b[8];
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) a[j] = _mm256_set_m128i(load(j + 8), load(j));
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      b[2 * j] = _mm256_unpacklo_epi16(a[2 * j], a[2 * j + 1]);
      b[2 * j + 1] = _mm256_unpackhi_epi16(a[2 * j], a[2 * j + 1]);
    }
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        a[4 * j + 2 * half] = _mm256_unpacklo_epi32(b[4 * j + half], b[4 * j + 2 + half]);
        a[4 * j + 2 * half + 1] = _mm256_unpackhi_epi32(b[4 * j + half], b[4 * j + 2 + half]);
      }
    }
    const auto store = [&](int channel, __m256i row) {
      _mm256_store_ps(panel[channel], _mm256_cvtph_ps(_mm256_castsi256_si128(row)));
      _mm256_store_ps(panel[channel] + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(row, 1)));
    };
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      store(2 * i, _mm256_unpacklo_epi64(a[i], a[4 + i]));
      store(2 * i + 1, _mm256_unpackhi_epi64(a[i], a[4 + i]));
    }
  }
}

inline void Lanes::Transpose(const float* keys, int64_t dim, int64_t,
                             float (*panel)[kKvBlockTokens]) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i places = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(static_cast<int>(dim)));
  for (int64_t i = 0; i < dim; ++i) {
    _mm256_store_ps(panel[i], _mm256_i32gather_ps(keys + i, places, sizeof(float)));
    _mm256_store_ps(panel[i] + 8, _mm256_i32gather_ps(keys + 8 * dim + i, places, sizeof(float)));
  }
  if (dim % 2 != 0) std::memset(panel[dim], 0, sizeof(panel[0]));
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LANES_AVX2_H_
