#include <cmath>

#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float Apply(Activation activation, float x) {
  constexpr float kSqrt2OverPi = 0.79788456f;
  constexpr float kHalfSqrt2 = 0.70710678f;
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0f + expf(-x));
    case Activation::kGelu:
      return 0.5f * x * (1.0f + erff(x * kHalfSqrt2));
    case Activation::kGeluTanh:
      return x / (1.0f + expf(-2.0f * kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    case Activation::kRelu:
      return x < 0 ? 0.0f : x;  // a NaN stays
  }
  return 0;
}

__global__ void __launch_bounds__(kThreads) ActivateKernel(ActivateArgs args) {
  TakeTurn();
  const int64_t i = BlockY() * kThreads + ThreadIndex();
  if (i >= args.width) return;
  const int64_t token = args.token_begin + BlockX();
  float value = Apply(args.activation, args.gate[token * args.stride + i]);
  if (args.up != nullptr) value *= args.up[token * args.stride + i];
  args.out[token * args.out_stride + i] = value;
}

}  // namespace

void Activate(const ActivateArgs& args, CUstream_st* stream) {
  Launch<ActivateKernel>(
      {args.token_end - args.token_begin, (args.width + kThreads - 1) / kThreads}, kThreads, 0,
      stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
