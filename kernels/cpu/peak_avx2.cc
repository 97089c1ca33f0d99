#include <immintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace sluice {

// Pairs of bytes to words, added as words: what the integer matmul does for each 32 bytes of
// weights.
int64_t ArithmeticPeakAvx2(int64_t rounds) {
  constexpr int kChains = 12;
  __m256i sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi16(static_cast<short>(i));
  __m256i weights = _mm256_set1_epi8(3);
  __m256i activations = _mm256_set1_epi8(5);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      // Each product anew: without this all chains would share one.
      __asm__ volatile("" : "+x"(weights));
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(weights, activations));
    }
  }
  __m256i all = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm256_add_epi16(all, sums[i]);
  __asm__ volatile("" : : "x"(all));
  return rounds * kChains * 32 * 2;
}

int64_t ArithmeticPeakF32Avx2(int64_t rounds) {
  constexpr int kChains = 12;
  __m256 sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  __m256 a = _mm256_set1_ps(0.5f);
  __m256 b = _mm256_set1_ps(0.25f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
    // The compiler must not know the operands, or it would compute the product beforehand.
    __asm__ volatile("" : "+x"(a), "+x"(b));
  }
  __m256 all = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm256_add_ps(all, sums[i]);
  __asm__ volatile("" : : "x"(all));
  return rounds * kChains * 8 * 2;
}

uint64_t ReadPeakAvx2(const std::byte* memory, size_t size_bytes) {
  constexpr size_t kStep = 8 * 32;
  __m256i sums[8] = {};
  for (size_t at = 0; at + kStep <= size_bytes; at += kStep) {
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
      sums[i] = _mm256_xor_si256(
          sums[i], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(memory + at + 32 * i)));
    }
  }
  __m256i all = sums[0];
  for (size_t i = 1; i < 8; ++i) all = _mm256_xor_si256(all, sums[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0)) ^
         static_cast<uint64_t>(_mm256_extract_epi64(all, 3));
}

}  // namespace sluice
