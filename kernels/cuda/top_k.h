// The largest values of each row, so that whole logits need not leave the device.
#ifndef SLUICE_KERNELS_CUDA_TOP_K_H_
#define SLUICE_KERNELS_CUDA_TOP_K_H_

#include <cstdint>

#include "kernels/cuda/intrinsics.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr int64_t kMostTopK = 256;

// For each row the `count` largest values, largest first, equal ones by ascending index. A NaN
// counts as larger than all else, so that it cannot pass unseen. With count 1: the greedy choice.
// All pointers are of device memory. REQUIRES: 1 <= count <= min(width, kMostTopK), width < 2^31.
struct TopKArgs {
  const float* x;  // [rows, width]
  int64_t x_stride;
  int64_t rows;
  int64_t width;
  int64_t count;
  float* values;     // [rows, count]
  int32_t* indices;  // [rows, count]
};

void TopK(const TopKArgs& args, CUstream_st* stream);

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_TOP_K_H_
