// Activations to int8 (kernels/README.md), sixteen groups at a time: their divisions are two vector
// instructions.
#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kGroups = 16;

// The bits of the largest magnitude among `count` values. As integers, those of infinity are beyond
// all numbers, and those of a NaN beyond infinity.
uint32_t MaxMagnitudeBits(const float* x, int64_t count) {
  const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t k = 0; k < count; k += 16) {
    const __m512i bits = _mm512_maskz_loadu_epi32(FirstLanes(count - k), x + k);
    largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, no_sign));
  }
  return _mm512_reduce_max_epu32(largest);
}

// x * inverse, rounded to nearest even; returns the sum of the integers. |x * inverse| is at most
// 127 and a rounding error, so there is nothing to clamp.
int32_t StoreIntegers(const float* x, float inverse, int64_t count, int8_t* out) {
  const __m512 factor = _mm512_set1_ps(inverse);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t k = 0; k < count; k += 16) {
    const __mmask16 lanes = FirstLanes(count - k);
    const __m512i integers =
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + k), factor));
    sum = _mm512_add_epi32(sum, integers);
    _mm_mask_storeu_epi8(out + k, lanes, _mm512_cvtepi32_epi8(integers));
  }
  return _mm512_reduce_add_epi32(sum);
}

// Groups [first, first + count) of a token, whose channels at x and values begin with the first
// one's; `channels` are left of the row.
void QuantizeGroups(const QuantizedActivations& out, int64_t count, const float* x,
                    int64_t channels, int8_t* values, float* scales, int32_t* sums) {
  const int64_t size = out.group_size;
  alignas(64) uint32_t bits[kGroups] = {};
  for (int64_t g = 0; g < count; ++g) {
    bits[g] = MaxMagnitudeBits(x + g * size, std::min(size, channels - g * size));
  }
  const __m512 largest = _mm512_load_ps(bits);
  const __m512 most = _mm512_set1_ps(127.0f);
  const __mmask16 finite = _mm512_cmp_ps_mask(
      largest, _mm512_set1_ps(std::numeric_limits<float>::infinity()), _CMP_LT_OQ);
  const __mmask16 used = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(1e-30f), _CMP_GE_OQ) & finite;
  const __m512 nan = _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN());
  const __m512 scale = _mm512_mask_blend_ps(finite, nan, _mm512_maskz_div_ps(used, largest, most));
  alignas(64) float inverse[kGroups];
  _mm512_store_ps(inverse, _mm512_maskz_div_ps(used, most, largest));
  _mm512_mask_storeu_ps(scales, FirstLanes(count), scale);
  for (int64_t g = 0; g < count; ++g) {
    const int64_t begin = g * size;
    const int64_t left = std::min(size, channels - begin);
    if ((used >> g & 1) == 0) {
      sums[g] = 0;
      if (left > 0) std::memset(values + begin, 0, static_cast<size_t>(left));
      continue;
    }
    sums[g] = StoreIntegers(x + begin, inverse[g], left, values + begin);
  }
}

}  // namespace

void QuantizeAvx512(const QuantizeArgs& args, CUstream_st*) {
  const QuantizedActivations& out = args.out;
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    int8_t* values = out.values + token * out.padded_cols;
    std::memset(values + args.cols, 0, static_cast<size_t>(out.padded_cols - args.cols));
    for (int64_t group = 0; group < out.groups; group += kGroups) {
      const int64_t begin = group * out.group_size;
      QuantizeGroups(out, std::min(kGroups, out.groups - group),
                     args.x + token * args.x_stride + begin, args.cols - begin, values + begin,
                     out.scales + token * out.groups + group,
                     out.sums + token * out.groups + group);
    }
  }
}

}  // namespace sluice
