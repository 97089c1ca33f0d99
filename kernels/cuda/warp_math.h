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

// `shared` has one element for each warp; it may be reused after the next barrier.
template <typename T>
__device__ __forceinline__ T BlockSum(T value, T* shared) {
  value = WarpSum(value);
  if (Lane() == 0) shared[Warp()] = value;
  SyncThreads();
  T sum = 0;
  for (int i = 0; i < BlockThreads() / kWarpThreads; ++i) sum += shared[i];
  return sum;
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_WARP_MATH_H_
