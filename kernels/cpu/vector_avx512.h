// Vectors of sixteen floats. Only for files compiled for AVX-512: everything here is local to the
// file that includes it, so that no function built with these instructions can be linked into code
// that runs on every processor.
#ifndef SLUICE_KERNELS_CPU_VECTOR_AVX512_H_
#define SLUICE_KERNELS_CPU_VECTOR_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace sluice {
namespace {  // NOLINT: see above

// The first `count` (0 or less: none, 16 or more: all) lanes.
[[maybe_unused]] inline __mmask16 FirstLanes(int64_t count) {
  if (count <= 0) return 0;
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
}

// Lanes 0 to 7 plus lanes 8 to 15, of which then ((0+4) + (2+6)) + ((1+5) + (3+7)).
[[maybe_unused]] inline float SumLanes(__m512 v) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

[[maybe_unused]] inline float MaxLanes(__m512 v) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 largest = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  largest = _mm_max_ps(largest, _mm_movehl_ps(largest, largest));
  return _mm_cvtss_f32(_mm_max_ss(largest, _mm_movehdup_ps(largest)));
}

// e^x to about one unit in the last place; overflow is infinity, underflow gradual, NaN stays.
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor polynomial of degree 7, whose rest is
// below 2^-31 there (Cody and Waite's reduction: ln 2 in two parts).
[[maybe_unused]] inline __m512 Exp(__m512 x) {
  // The constant comes first, so that a NaN in x is what min and max return.
  x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  for (float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
  }
  return _mm512_scalef_ps(p, n);
}

// cap tanh(score / cap); tanh(x) = 1 - 2 / (exp(2x) + 1), which is off by a few epsilons, not by a
// relative few, and scores matter absolutely.
[[maybe_unused]] inline __m512 SoftCap(__m512 score, float cap) {
  const __m512 e = Exp(_mm512_mul_ps(score, _mm512_set1_ps(2 / cap)));
  const __m512 one = _mm512_set1_ps(1.0f);
  const __m512 part = _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one));
  return _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(one, part));
}

// To bfloat16 and back; a tie goes to the even one. Not for NaN.
[[maybe_unused]] inline __m512 RoundToBf16(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  return _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(-0x10000)));
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_VECTOR_AVX512_H_
