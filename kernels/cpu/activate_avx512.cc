#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vector_avx512.h"
#include "kernels/ref/ref.h"

namespace sluice {
namespace {

// x / (1 + exp(-y)).
__m512 Sigmoid(__m512 x, __m512 y) {
  const __m512 negative = _mm512_xor_ps(y, _mm512_set1_ps(-0.0f));
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), Exp(negative)));
}

template <Activation activation>
__m512 Apply(__m512 x) {
  if constexpr (activation == Activation::kSilu) {
    return Sigmoid(x, x);
  } else if constexpr (activation == Activation::kGeluTanh) {
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 inner = _mm512_fmadd_ps(_mm512_set1_ps(0.044715f), cube, x);
    return Sigmoid(x, _mm512_mul_ps(_mm512_set1_ps(2 * 0.79788456f), inner));
  } else {
    return _mm512_max_ps(_mm512_setzero_ps(), x);  // a NaN in x is what max returns
  }
}

template <Activation activation>
void Activate(const ActivateArgs& args) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* gate = args.gate + token * args.stride;
    const float* up = args.up == nullptr ? nullptr : args.up + token * args.stride;
    float* out = args.out + token * args.out_stride;
    for (int64_t i = 0; i < args.width; i += 16) {
      const __mmask16 lanes = FirstLanes(args.width - i);
      __m512 value = Apply<activation>(_mm512_maskz_loadu_ps(lanes, gate + i));
      if (up != nullptr) value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(lanes, up + i));
      _mm512_mask_storeu_ps(out + i, lanes, value);
    }
  }
}

}  // namespace

void ActivateAvx512(const ActivateArgs& args, CUstream_st* stream) {
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
