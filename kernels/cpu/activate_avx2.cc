#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"
#include "kernels/ref/ref.h"

namespace sluice {
namespace {

// x / (1 + exp(-y)).
__m256 Sigmoid(__m256 x, __m256 y) {
  const __m256 negative = _mm256_xor_ps(y, _mm256_set1_ps(-0.0f));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), Exp(negative)));
}

template <Activation activation>
__m256 Apply(__m256 x) {
  if constexpr (activation == Activation::kSilu) {
    return Sigmoid(x, x);
  } else if constexpr (activation == Activation::kGeluTanh) {
    const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
    const __m256 inner = _mm256_fmadd_ps(_mm256_set1_ps(0.044715f), cube, x);
    return Sigmoid(x, _mm256_mul_ps(_mm256_set1_ps(2 * 0.79788456f), inner));
  } else {
    return _mm256_max_ps(_mm256_setzero_ps(), x);  // a NaN in x is what max returns
  }
}

template <Activation activation>
void Activate(const ActivateArgs& args) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* gate = args.gate + token * args.stride;
    const float* up = args.up == nullptr ? nullptr : args.up + token * args.stride;
    float* out = args.out + token * args.out_stride;
    for (int64_t i = 0; i < args.width; i += 8) {
      const int64_t left = args.width - i;
      __m256 value = Apply<activation>(LoadFirst(gate + i, left));
      if (up != nullptr) value = _mm256_mul_ps(value, LoadFirst(up + i, left));
      StoreFirst(out + i, value, left);
    }
  }
}

}  // namespace

void ActivateAvx2(const ActivateArgs& args, CUstream_st* stream) {
  switch (args.activation) {
    case Activation::kSilu:
      return Activate<Activation::kSilu>(args);
    case Activation::kGeluTanh:
      return Activate<Activation::kGeluTanh>(args);
    case Activation::kRelu:
      return Activate<Activation::kRelu>(args);
    case Activation::kGelu:
      return ActivateRef(args, stream);
  }
}

}  // namespace sluice
