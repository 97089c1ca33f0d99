// f16 numbers in pairs, as the attention puts them into fragments.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_HALVES_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_HALVES_H_

#include "kernels/cuda/intrinsics.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

// Two numbers as two f16 each, whose sums are the numbers to 22 bits.
struct SplitPair {
  uint32_t high, low;
};
__device__ __forceinline__ SplitPair Split(float first, float second) {
  const uint16_t h0 = FloatToHalf(first);
  const uint16_t h1 = FloatToHalf(second);
  const uint16_t l0 = FloatToHalf(first - HalfToFloat(h0));
  const uint16_t l1 = FloatToHalf(second - HalfToFloat(h1));
  return {static_cast<uint32_t>(h0) | static_cast<uint32_t>(h1) << 16,
          static_cast<uint32_t>(l0) | static_cast<uint32_t>(l1) << 16};
}

// Bits that are set in the sum of both halves of a word with kExponentOne where a half is infinite
// or NaN.
inline constexpr uint32_t kExponents = 0x7c007c00u;
inline constexpr uint32_t kExponentOne = 0x04000400u;
inline constexpr uint32_t kNotFinite = 0x80008000u;

__device__ __forceinline__ uint32_t NotFinite(uint32_t halves) {
  return ((halves & kExponents) + kExponentOne) & kNotFinite;
}

// Zeros instead of halves that are not finite.
__device__ __forceinline__ uint32_t FiniteOrZero(uint32_t halves) {
  return halves & ~((NotFinite(halves) >> 15) * 0xffffu);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_HALVES_H_
