// Reductions over the lanes of a warp and the threads of a block; every thread gets the result, and
// the order of the additions is fixed.
#ifndef SLUICE_KERNELS_CUDA_WARP_MATH_H_
#define SLUICE_KERNELS_CUDA_WARP_MATH_H_

#include "kernels/cuda/intrinsics.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
  for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  return value;
}

inline constexpr size_t kBlockSumBytes = kWarpThreads * sizeof(float);

// `shared` has one element for each warp of the largest block; it may be reused after the next
// barrier.
template <typename T>
__device__ __forceinline__ T BlockSum(T value, T* shared) {
  value = WarpSum(value);
  if (Lane() == 0) shared[Warp()] = value;
  SyncThreads();
  return WarpSum(Lane() < BlockThreads() / kWarpThreads ? shared[Lane()] : T{0});
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_WARP_MATH_H_
