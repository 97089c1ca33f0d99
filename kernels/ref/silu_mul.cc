#include <cmath>

#include "kernels/ref/ref.h"

namespace sluice {

void SiluMulRef(const SiluMulArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* gate = args.gate + token * args.stride;
    const float* up = args.up + token * args.stride;
    float* out = args.out + token * args.out_stride;
    for (int64_t i = 0; i < args.width; ++i) {
      out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    }
  }
}

}  // namespace sluice
