#include <cmath>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

// In double, as in ref.
double SumOfSquares(const float* x, int64_t count) {
  __m256d low = _mm256_setzero_pd();
  __m256d high = _mm256_setzero_pd();
  const auto add = [&](__m256 value) {
    const __m256d first = _mm256_cvtps_pd(_mm256_castps256_ps128(value));
    const __m256d second = _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1));
    low = _mm256_fmadd_pd(first, first, low);
    high = _mm256_fmadd_pd(second, second, high);
  };
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) add(_mm256_loadu_ps(x + i));
  if (i < count) add(LoadFirst(x + i, count - i));
  const __m256d sum = _mm256_add_pd(low, high);
  const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
  return _mm_cvtsd_f64(pair) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair, pair));
}

}  // namespace

void RmsNormAvx2(const RmsNormArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    float* y = args.y + token * args.y_stride;
    const double mean = SumOfSquares(x, args.width) / static_cast<double>(args.width);
    const __m256 factor =
        _mm256_set1_ps(static_cast<float>(1 / std::sqrt(mean + double{args.eps})));
    for (int64_t i = 0; i < args.width; i += 8) {
      const int64_t left = args.width - i;
      const __m256 scaled = _mm256_mul_ps(LoadFirst(x + i, left), factor);
      __m256 value = _mm256_mul_ps(scaled, LoadFirst(args.weight + i, left));
      if (args.add_to_y) value = _mm256_add_ps(LoadFirst(y + i, left), value);
      StoreFirst(y + i, value, left);
    }
  }
}

}  // namespace sluice
