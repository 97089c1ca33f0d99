#include "formats/half.h"
#include "kernels/ref/bf16.h"
#include "kernels/ref/ref.h"

namespace sluice {

void RoundBf16Ref(const RoundBf16Args& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    for (int64_t k = 0; k < args.out.padded_cols; ++k) {
      args.out.values[Bf16Place(args.out, token, k)] = k < args.cols ? FloatToBf16(x[k]) : 0;
    }
  }
  if (args.token_end < args.tokens) return;
  for (int64_t token = args.tokens; token % kBf16Tokens != 0; ++token) {
    for (int64_t k = 0; k < args.out.padded_cols; ++k) {
      args.out.values[Bf16Place(args.out, token, k)] = 0;
    }
  }
}

}  // namespace sluice
