#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/rows.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 128;

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

struct ActivateWork {
  ActivateArgs args;
  QuantizedActivations quantized;
};

__global__ void __launch_bounds__(kThreads) ActivateKernel(ActivateWork work) {
  TakeTurn();
  const ActivateArgs& args = work.args;
  const int64_t token = args.token_begin + BlockX();
  const int quad = static_cast<int>(BlockY()) * kThreads + ThreadIndex();
  const auto width = static_cast<int>(args.width);
  const Quad gate = LoadQuad(args.gate + token * args.stride, quad, width);
  Quad values;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    values.value[i] = quad * kQuad + i < width ? Apply(args.activation, gate.value[i]) : 0.0f;
  }
  if (args.up != nullptr) {
    const Quad up = LoadQuad(args.up + token * args.stride, quad, width);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) values.value[i] *= up.value[i];
  }
  StoreQuad(values, quad, width, args.out + token * args.out_stride);
  if (work.quantized.values != nullptr) QuantizeQuad(values, quad, token, work.quantized);
}

}  // namespace

void Activate(const ActivateArgs& args, CUstream_st* stream) {
  constexpr int64_t kChannels = kThreads * kQuad;
  const QuantizedActivations quantized = QuantizedOrNone(args.quantized);
  const int64_t channels = quantized.values == nullptr ? args.width : quantized.padded_cols;
  Launch<ActivateKernel>(
      {args.token_end - args.token_begin, (channels + kChannels - 1) / kChannels}, kThreads, 0,
      stream, {args, quantized});
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
