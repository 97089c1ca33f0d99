// Vectors of eight floats. Only for files compiled for AVX2: everything here is local to the file
// that includes it, so that no function built with these instructions can be linked into code that
// runs on every processor.
#ifndef SLUICE_KERNELS_CPU_VECTOR_AVX2_H_
#define SLUICE_KERNELS_CPU_VECTOR_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace sluice {
namespace {  // NOLINT: see above

// The first `count` (0 to 8) lanes set.
[[maybe_unused]] inline __m256i LaneMask(int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}

// The first `count` numbers at p, all eight if there are more; zeros behind them. Masks are for the
// rest of a row alone: AMD's processors take many cycles for a masked store.
[[maybe_unused]] inline __m256 LoadFirst(const float* p, int64_t count) {
  return count >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, LaneMask(count));
}
[[maybe_unused]] inline void StoreFirst(float* p, __m256 v, int64_t count) {
  if (count >= 8) return _mm256_storeu_ps(p, v);
  _mm256_maskstore_ps(p, LaneMask(count), v);
}

// ((0+4) + (2+6)) + ((1+5) + (3+7)).
[[maybe_unused]] inline float SumLanes(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

[[maybe_unused]] inline float MaxLanes(__m256 v) {
  __m128 largest = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  largest = _mm_max_ps(largest, _mm_movehl_ps(largest, largest));
  return _mm_cvtss_f32(_mm_max_ss(largest, _mm_movehdup_ps(largest)));
}

// e^x to about one unit in the last place; overflow is infinity, underflow gradual, NaN stays.
// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r by its Taylor polynomial of degree 7, whose rest is
// below 2^-31 there (Cody and Waite's reduction: ln 2 in two parts).
[[maybe_unused]] inline __m256 Exp(__m256 x) {
  // The constant comes first, so that a NaN in x is what min and max return.
  x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
  x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  for (float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(coefficient));
  }
  // 2^n in two factors: n reaches from -150 to 128, one exponent only from -126 to 127.
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const auto power = [bias](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(p, power(half)), power(rest));
}

// cap tanh(score / cap); tanh(x) = 1 - 2 / (exp(2x) + 1), which is off by a few epsilons, not by a
// relative few, and scores matter absolutely.
[[maybe_unused]] inline __m256 SoftCap(__m256 score, float cap) {
  const __m256 e = Exp(_mm256_mul_ps(score, _mm256_set1_ps(2 / cap)));
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 part = _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one));
  return _mm256_mul_ps(_mm256_set1_ps(cap), _mm256_sub_ps(one, part));
}

// To bfloat16 and back; a tie goes to the even one. Not for NaN.
[[maybe_unused]] inline __m256 RoundToBf16(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
  return _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(-0x10000)));
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_VECTOR_AVX2_H_
