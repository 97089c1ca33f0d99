// Keys of the paged cache, and elements of either type. Only for files compiled for AVX-512;
// everything is local to the file that includes it (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_KEYS_AVX512_H_
#define SLUICE_KERNELS_CPU_KEYS_AVX512_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

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

template <KvType type>
inline constexpr int64_t kLineElements = 64 / sizeof(typename Element<type>::Bits);

// Asks for the line `ahead` bytes after p, into the second-level cache: more of those can be on
// their way than of the first level's.
inline void Prefetch(const void* p, int64_t ahead) {
  _mm_prefetch(static_cast<const char*>(p) + ahead, _MM_HINT_T1);
}

// panel[i][j] = channel i of key j, zero for channels from dim to an even number. Also asks for the
// keys `ahead` bytes after these.
[[maybe_unused]] void Transpose(const uint16_t* keys, int64_t dim, int64_t ahead,
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

[[maybe_unused]] void Transpose(const float* keys, int64_t dim, int64_t,
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

#endif  // SLUICE_KERNELS_CPU_KEYS_AVX512_H_
