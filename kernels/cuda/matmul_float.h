// Weights in f32, f16 or bf16 times float activations.
#ifndef SLUICE_KERNELS_CUDA_MATMUL_FLOAT_H_
#define SLUICE_KERNELS_CUDA_MATMUL_FLOAT_H_

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/intrinsics.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

struct FloatMatmul {
  GpuLayout layout;
  const std::byte* tiles;
  int64_t num_tiles;
  int64_t rows;
  const float* x;
  int64_t x_stride;
  int64_t tokens;
  const float* bias;
  bool add_to_y;
  float* y;
  int64_t y_stride;
  int64_t chunk_begin, chunk_end;
};

// A result is the same to the bit whatever the number of tokens.
void MatmulFloat(const FloatMatmul& args, CUstream_st* stream);

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_MATMUL_FLOAT_H_
