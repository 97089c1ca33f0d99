#include <immintrin.h>

#include "kernels/cpu/peak_loops.h"

namespace sluice {

int64_t ArithmeticPeakAvx512(int64_t rounds) {
  constexpr int kChains = 14;
  __m512i sums[kChains];
#pragma GCC unroll 14
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i weights = _mm512_set1_epi8(3);
  __m512i activations = _mm512_set1_epi8(5);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 14
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], weights, activations);
    // The compiler must not know the operands, or it would compute the sum beforehand.
    __asm__ volatile("" : "+v"(weights), "+v"(activations));
  }
  __m512i all = sums[0];
#pragma GCC unroll 14
  for (int i = 1; i < kChains; ++i) all = _mm512_add_epi32(all, sums[i]);
  __asm__ volatile("" : : "v"(all));
  return rounds * kChains * 64 * 2;
}

int64_t ArithmeticPeakF32Avx512(int64_t rounds) {
  constexpr int kChains = 12;
  __m512 sums[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 a = _mm512_set1_ps(0.5f);
  __m512 b = _mm512_set1_ps(0.25f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
    // The compiler must not know the operands, or it would compute the product beforehand.
    __asm__ volatile("" : "+v"(a), "+v"(b));
  }
  __m512 all = sums[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  __asm__ volatile("" : : "v"(all));
  return rounds * kChains * 16 * 2;
}

uint64_t ReadPeakAvx512(const std::byte* memory, size_t size_bytes) {
  constexpr size_t kStep = 8 * 64;
  __m512i sums[8] = {};
  for (size_t at = 0; at + kStep <= size_bytes; at += kStep) {
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; ++i) {
      sums[i] = _mm512_xor_si512(sums[i], _mm512_loadu_si512(memory + at + 64 * i));
    }
  }
  __m512i all = sums[0];
  for (size_t i = 1; i < 8; ++i) all = _mm512_xor_si512(all, sums[i]);
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, all);
  return words[0] ^ words[7];
}

}  // namespace sluice
