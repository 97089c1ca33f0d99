#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

// The largest magnitude among `count` values, NaN if there is one.
float MaxMagnitude(const float* x, int64_t count) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 largest = _mm256_setzero_ps();
  __m256 unordered = _mm256_setzero_ps();
  const auto add = [&](__m256 value) {
    unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    largest = _mm256_max_ps(largest, _mm256_and_ps(value, no_sign));
  };
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) add(_mm256_loadu_ps(x + k));
  if (k < count) add(_mm256_maskload_ps(x + k, LaneMask(count - k)));
  if (_mm256_movemask_ps(unordered) != 0) return std::numeric_limits<float>::quiet_NaN();
  return MaxLanes(largest);
}

// x * inverse, rounded to nearest even, as eight bytes. |x * inverse| is at most 127 and a rounding
// error, so there is nothing to clamp.
int32_t StoreIntegers(__m256 x, __m256 inverse, int64_t count, int8_t* out) {
  const __m256i integers = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
  const __m128i bytes = _mm_packs_epi16(words, words);
  int64_t eight;
  _mm_storel_epi64(reinterpret_cast<__m128i*>(&eight), bytes);
  std::memcpy(out, &eight, static_cast<size_t>(count));
  __m128i sums = _mm_madd_epi16(words, _mm_set1_epi16(1));
  sums = _mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums));
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi32(sums, 1);
}

// One group of `count` channels, 0 for one that is only padding.
void QuantizeGroup(const float* x, int64_t count, int8_t* values, float* scale, int32_t* sum) {
  *sum = 0;
  const float largest = MaxMagnitude(x, count);
  if (!std::isfinite(largest) || largest < 1e-30f) {
    *scale = std::isfinite(largest) ? 0 : std::numeric_limits<float>::quiet_NaN();
    std::memset(values, 0, static_cast<size_t>(count));
    return;
  }
  *scale = largest / 127.0f;
  const __m256 inverse = _mm256_set1_ps(127.0f / largest);
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    *sum += StoreIntegers(_mm256_loadu_ps(x + k), inverse, 8, values + k);
  }
  if (k < count) {
    const __m256 rest = _mm256_maskload_ps(x + k, LaneMask(count - k));
    *sum += StoreIntegers(rest, inverse, count - k, values + k);
  }
}

}  // namespace

void QuantizeAvx2(const QuantizeArgs& args, CUstream_st*) {
  const QuantizedActivations& out = args.out;
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    int8_t* values = out.values + token * out.padded_cols;
    std::memset(values + args.cols, 0, static_cast<size_t>(out.padded_cols - args.cols));
    for (int64_t group = 0; group < out.groups; ++group) {
      const int64_t begin = std::min(group * out.group_size, args.cols);
      const int64_t count = std::min(out.group_size, args.cols - begin);
      const int64_t at = token * out.groups + group;
      QuantizeGroup(args.x + token * args.x_stride + begin, count, values + begin, &out.scales[at],
                    &out.sums[at]);
    }
  }
}

}  // namespace sluice
