#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

__m256 SiluMul(__m256 gate, __m256 up) {
  const __m256 negative = _mm256_xor_ps(gate, _mm256_set1_ps(-0.0f));
  const __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), Exp(negative));
  return _mm256_mul_ps(_mm256_div_ps(gate, divisor), up);
}

}  // namespace

void SiluMulAvx2(const SiluMulArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* gate = args.gate + token * args.stride;
    const float* up = args.up + token * args.stride;
    float* out = args.out + token * args.out_stride;
    int64_t i = 0;
    for (; i + 8 <= args.width; i += 8) {
      _mm256_storeu_ps(out + i, SiluMul(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    }
    if (i < args.width) {
      const __m256i mask = LaneMask(args.width - i);
      const __m256 result =
          SiluMul(_mm256_maskload_ps(gate + i, mask), _mm256_maskload_ps(up + i, mask));
      _mm256_maskstore_ps(out + i, mask, result);
    }
  }
}

}  // namespace sluice
