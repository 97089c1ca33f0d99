#include <cmath>
#include <numbers>

#include "kernels/ref/ref.h"

namespace sluice {
namespace {

float Apply(Activation activation, float x) {
  constexpr float kSqrt2OverPi = 0.79788456f;
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * std::numbers::sqrt2_v<float> * 0.5f));
    case Activation::kGeluTanh:
      return x / (1.0f + std::exp(-2.0f * kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    case Activation::kRelu:
      return x < 0 ? 0.0f : x;  // a NaN stays
  }
  return 0;
}

}  // namespace

void ActivateRef(const ActivateArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* gate = args.gate + token * args.stride;
    const float* up = args.up == nullptr ? nullptr : args.up + token * args.stride;
    float* out = args.out + token * args.out_stride;
    for (int64_t i = 0; i < args.width; ++i) {
      const float value = Apply(args.activation, gate[i]);
      out[i] = up == nullptr ? value : value * up[i];
    }
  }
}

}  // namespace sluice
