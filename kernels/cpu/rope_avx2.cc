#include <algorithm>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

constexpr int64_t kPairs = 64;  // whose cosines are kept for all heads

// Four angles, reduced to [-pi/4, pi/4] in double: exact enough for any float32 angle up to 2^30.
inline __m128 Reduce(__m128 angle, __m128i* quadrant) {
  const __m256d x = _mm256_cvtps_pd(angle);
  const __m256d n = _mm256_round_pd(_mm256_mul_pd(x, _mm256_set1_pd(0.63661977236758134308)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  *quadrant = _mm256_cvtpd_epi32(n);
  const __m256d rest = _mm256_fnmadd_pd(n, _mm256_set1_pd(1.57079632679489661923), x);
  return _mm256_cvtpd_ps(rest);
}

// Taylor polynomials; the first terms left out are below 2^-26 and 2^-29 of the result.
inline void SineCosine(__m256 angle, __m256* sine, __m256* cosine) {
  __m128i low, high;
  const __m128 low_rest = Reduce(_mm256_castps256_ps128(angle), &low);
  const __m128 high_rest = Reduce(_mm256_extractf128_ps(angle, 1), &high);
  const __m256 r = _mm256_set_m128(high_rest, low_rest);
  const __m256i quadrant = _mm256_set_m128i(high, low);
  const __m256 square = _mm256_mul_ps(r, r);
  __m256 s = _mm256_set1_ps(1.0f / 362880);
  for (float c : {-1.0f / 5040, 1.0f / 120, -1.0f / 6}) {
    s = _mm256_fmadd_ps(s, square, _mm256_set1_ps(c));
  }
  s = _mm256_fmadd_ps(_mm256_mul_ps(s, square), r, r);
  __m256 c = _mm256_set1_ps(-1.0f / 3628800);
  for (float term : {1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f, 1.0f}) {
    c = _mm256_fmadd_ps(c, square, _mm256_set1_ps(term));
  }
  // Odd quadrants swap the two; the sign of the sine turns in quadrants 2 and 3, the cosine's in 1
  // and 2.
  const __m256 swap = _mm256_castsi256_ps(_mm256_slli_epi32(quadrant, 31));
  const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u));
  const __m256i sine_sign = _mm256_and_si256(_mm256_slli_epi32(quadrant, 30), sign);
  const __m256i next = _mm256_add_epi32(quadrant, _mm256_set1_epi32(1));
  const __m256i cosine_sign = _mm256_and_si256(_mm256_slli_epi32(next, 30), sign);
  *sine = _mm256_xor_ps(_mm256_blendv_ps(s, c, swap), _mm256_castsi256_ps(sine_sign));
  *cosine = _mm256_xor_ps(_mm256_blendv_ps(c, s, swap), _mm256_castsi256_ps(cosine_sign));
}

// Turns `count` pairs of one head.
void Rotate(float* first, float* second, int64_t count, const float* cosines, const float* sines) {
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    const __m256 a = LoadFirst(first + i, left);
    const __m256 b = LoadFirst(second + i, left);
    const __m256 cosine = _mm256_load_ps(cosines + i);
    const __m256 sine = _mm256_load_ps(sines + i);
    StoreFirst(first + i, _mm256_sub_ps(_mm256_mul_ps(a, cosine), _mm256_mul_ps(b, sine)), left);
    StoreFirst(second + i, _mm256_add_ps(_mm256_mul_ps(b, cosine), _mm256_mul_ps(a, sine)), left);
  }
}

}  // namespace

void RopeAvx2(const RopeArgs& args, CUstream_st*) {
  const int64_t half = args.dim / 2;
  alignas(32) float cosines[kPairs];
  alignas(32) float sines[kPairs];
  const __m256 magnitude = _mm256_set1_ps(args.magnitude);
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const __m256 position = _mm256_set1_ps(static_cast<float>(args.positions[token]));
    for (int64_t begin = 0; begin < half; begin += kPairs) {
      const int64_t count = std::min(kPairs, half - begin);
      for (int64_t i = 0; i < count; i += 8) {
        const __m256 frequency = LoadFirst(args.frequencies + begin + i, count - i);
        __m256 sine, cosine;
        SineCosine(_mm256_mul_ps(position, frequency), &sine, &cosine);
        _mm256_store_ps(cosines + i, _mm256_mul_ps(cosine, magnitude));
        _mm256_store_ps(sines + i, _mm256_mul_ps(sine, magnitude));
      }
      for (int64_t head = 0; head < args.heads; ++head) {
        float* x = args.x + token * args.x_stride + head * args.head_dim + begin;
        Rotate(x, x + half, count, cosines, sines);
      }
    }
  }
}

}  // namespace sluice
