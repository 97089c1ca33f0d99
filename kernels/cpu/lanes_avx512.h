// Sixteen floats in one register, for attention_tiles.h. Only for files compiled for AVX-512;
// everything is local to the file that includes it (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_LANES_AVX512_H_
#define SLUICE_KERNELS_CPU_LANES_AVX512_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/vector_avx512.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

struct Lanes {
  using Vector = __m512;
  static constexpr int kScoreQueries = 6;  // that share each load of keys
  static constexpr int kSums = 24;         // vectors for sums of values
  // What a panel of keys holds, and how many queries pay for values in float32: a load that
  // converts costs no more than one of twice the bytes.
  template <typename Bits>
  using PanelBits = Bits;
  static constexpr int64_t kWidenQueries = std::numeric_limits<int64_t>::max();

  static Vector Set(float x) { return _mm512_set1_ps(x); }
  static Vector Load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector Load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  // The first `count` lanes (16 or more: all) of which the others are 0.
  static Vector LoadFirst(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(FirstLanes(count), p);
  }
  static Vector LoadFirst(const uint16_t* p, int64_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(FirstLanes(count), p));
  }
  static void Store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static void StoreFirst(float* p, Vector x, int64_t count) {
    _mm512_mask_storeu_ps(p, FirstLanes(count), x);
  }
  static Vector Add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector Sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector Mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector Div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector Max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector Fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector Exp(Vector x) { return sluice::Exp(x); }
  static Vector SoftCap(Vector x, float cap) { return sluice::SoftCap(x, cap); }
  static Vector RoundToBf16(Vector x) { return sluice::RoundToBf16(x); }
  static Vector Indices() {
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
  static float First(Vector x) { return _mm512_cvtss_f32(x); }
  static float SumLanes(Vector x) { return sluice::SumLanes(x); }
  static float MaxLanes(Vector x) { return sluice::MaxLanes(x); }
  // Lanes outside [begin, end) become `other`.
  static Vector Only(Vector x, int64_t begin, int64_t end, float other) {
    const auto seen = static_cast<__mmask16>(FirstLanes(end) & ~FirstLanes(begin));
    return _mm512_mask_mov_ps(_mm512_set1_ps(other), seen, x);
  }
  static bool AnyGreater(Vector x, float than) {
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(than), _CMP_GT_OQ) != 0;
  }
  // Asks for the line `ahead` bytes after p, into the second-level cache: more of those can be on
  // their way than of the first level's.
  static void Prefetch(const void* p, int64_t ahead) {
    _mm_prefetch(static_cast<const char*>(p) + ahead, _MM_HINT_T1);
  }
  // panel[i][j] = channel i of key j, zero for channels from dim to an even number; rows up to a
  // multiple of 32 may be written. Also asks for the keys `ahead` bytes after these.
  static void Transpose(const uint16_t* keys, int64_t dim, int64_t ahead,
                        uint16_t (*panel)[kKvBlockTokens]);
  static void Transpose(const float* keys, int64_t dim, int64_t ahead,
                        float (*panel)[kKvBlockTokens]);
};

inline void Lanes::Transpose(const uint16_t* keys, int64_t dim, int64_t ahead,
                             uint16_t (*panel)[kKvBlockTokens]) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (int64_t begin = 0; begin < dim; begin += 32, panel += 32) {
    const int64_t left = std::min<int64_t>(dim - begin, 32);
    const auto mask = static_cast<__mmask32>((uint64_t{1} << left) - 1);
    __m512i a[16];
    __m512i b[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) {
      a[j] = _mm512_maskz_loadu_epi16(mask, keys + j * dim + begin);
      Prefetch(keys + j * dim + begin, ahead);
    }
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

inline void Lanes::Transpose(const float* keys, int64_t dim, int64_t,
                             float (*panel)[kKvBlockTokens]) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(dim)));
  for (int64_t i = 0; i < dim; ++i) {
    _mm512_store_ps(panel[i], _mm512_i32gather_ps(places, keys + i, sizeof(float)));
  }
  if (dim % 2 != 0) _mm512_store_ps(panel[dim], _mm512_setzero_ps());
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LANES_AVX512_H_
