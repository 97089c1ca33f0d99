#include <cstring>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/vector_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kStepElements = kBf16Tokens * kBf16Channels;

}  // namespace

void RoundBf16Avx512(const RoundBf16Args& args, CUstream_st*) {
  const int64_t steps = args.out.padded_cols / kBf16Channels;
  const auto place = [&](int64_t token) {
    return args.out.values + token / kBf16Tokens * steps * kStepElements +
           token % kBf16Tokens * kBf16Channels;
  };
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    uint16_t* out = place(token);
    for (int64_t step = 0; step < steps; ++step, out += kStepElements) {
      const int64_t k = step * kBf16Channels;
      const __m512 low = _mm512_maskz_loadu_ps(FirstLanes(args.cols - k), x + k);
      const __m512 high = _mm512_maskz_loadu_ps(FirstLanes(args.cols - k - 16), x + k + 16);
      _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
  }
  if (args.token_end < args.tokens) return;
  for (int64_t token = args.tokens; token % kBf16Tokens != 0; ++token) {
    uint16_t* out = place(token);
    for (int64_t step = 0; step < steps; ++step, out += kStepElements) {
      std::memset(out, 0, kBf16Channels * sizeof(uint16_t));
    }
  }
}

}  // namespace sluice
