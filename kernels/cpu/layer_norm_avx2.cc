#include <cmath>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

// Eight numbers in double, as ref computes with them.
struct Doubles {
  __m256d low, high;
};

inline Doubles ToDoubles(__m256 v) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))};
}

inline double Sum(const Doubles& sums) {
  const __m256d sum = _mm256_add_pd(sums.low, sums.high);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
  return _mm_cvtsd_f64(pair) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
}

double Mean(const float* x, int64_t width) {
  Doubles sums = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  for (int64_t i = 0; i < width; i += 8) {
    const Doubles v = ToDoubles(LoadFirst(x + i, width - i));
    sums.low = _mm256_add_pd(sums.low, v.low);
    sums.high = _mm256_add_pd(sums.high, v.high);
  }
  return Sum(sums) / static_cast<double>(width);
}

// x - mean.
inline Doubles Centred(const float* x, int64_t left, __m256d mean) {
  const Doubles v = ToDoubles(LoadFirst(x, left));
  return {_mm256_sub_pd(v.low, mean), _mm256_sub_pd(v.high, mean)};
}

double Variance(const float* x, int64_t width, double mean) {
  const __m256d means = _mm256_set1_pd(mean);
  Doubles sums = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  int64_t i = 0;
  for (; i + 8 <= width; i += 8) {
    const Doubles v = Centred(x + i, 8, means);
    sums.low = _mm256_fmadd_pd(v.low, v.low, sums.low);
    sums.high = _mm256_fmadd_pd(v.high, v.high, sums.high);
  }
  double rest = 0;  // what is behind the row is no zero once the mean is subtracted
  for (; i < width; ++i) rest += (x[i] - mean) * (x[i] - mean);
  return (Sum(sums) + rest) / static_cast<double>(width);
}

}  // namespace

void LayerNormAvx2(const LayerNormArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    float* y = args.y + token * args.y_stride;
    const double mean = Mean(x, args.width);
    const double variance = Variance(x, args.width, mean);
    const __m256d means = _mm256_set1_pd(mean);
    const __m256d factor = _mm256_set1_pd(1 / std::sqrt(variance + double{args.eps}));
    for (int64_t i = 0; i < args.width; i += 8) {
      const int64_t left = args.width - i;
      const Doubles v = Centred(x + i, left, means);
      const __m256 normal = _mm256_set_m128(_mm256_cvtpd_ps(_mm256_mul_pd(v.high, factor)),
                                            _mm256_cvtpd_ps(_mm256_mul_pd(v.low, factor)));
      __m256 value = _mm256_mul_ps(normal, LoadFirst(args.weight + i, left));
      if (args.bias != nullptr) value = _mm256_add_ps(value, LoadFirst(args.bias + i, left));
      StoreFirst(y + i, value, left);
    }
  }
}

}  // namespace sluice
