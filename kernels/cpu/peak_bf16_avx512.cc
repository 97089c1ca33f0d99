#include <immintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace sluice {

int64_t ArithmeticPeakBf16Avx512(int64_t rounds) {
  constexpr int kChains = 16;
  __m512 sums[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512i weights = _mm512_set1_epi16(0x3f80);  // 1
  __m512i activations = _mm512_set1_epi16(0x3f00);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(weights),
                                 reinterpret_cast<__m512bh>(activations));
    }
    // The compiler must not know the operands, or it would compute the sum beforehand.
    __asm__ volatile("" : "+v"(weights), "+v"(activations));
  }
  __m512 all = sums[0];
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  __asm__ volatile("" : : "v"(all));
  return rounds * kChains * 32 * 2;
}

}  // namespace sluice
