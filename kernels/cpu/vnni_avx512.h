// What products by vpdpbusd share. Only for files compiled for AVX-512; everything is local to the
// file that includes it (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_VNNI_AVX512_H_
#define SLUICE_KERNELS_CPU_VNNI_AVX512_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

[[maybe_unused]] inline __m512i Load(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Four activations for all rows.
[[maybe_unused]] inline __m512i Broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// vpdpbusd. Not the intrinsic, because GCC 12 copies its sums from register to register, and to
// memory, in every round of a loop.
[[maybe_unused]] inline __m512i AddDots(__m512i sum, __m512i weights, __m512i activations) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(activations));
  return sum;
}

// 16 f16 numbers.
[[maybe_unused]] inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Activations of some tokens from one group on, each token's `stride` bytes or `groups` numbers
// behind those of the one before.
struct Tokens {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
  int64_t stride;
  int64_t groups;
};

[[maybe_unused]] inline Tokens TokensAt(const QuantizedActivations& x, int64_t token,
                                        int64_t group) {
  return {x.values + token * x.padded_cols + group * x.group_size,
          x.scales + token * x.groups + group, x.sums + token * x.groups + group, x.padded_cols,
          x.groups};
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_VNNI_AVX512_H_
