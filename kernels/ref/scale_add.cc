#include "kernels/ref/ref.h"

namespace sluice {

void ScaleAddRef(const ScaleAddArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    float* y = args.y + token * args.y_stride;
    const float* x = args.x == nullptr ? nullptr : args.x + token * args.x_stride;
    for (int64_t i = 0; i < args.width; ++i) {
      const float scaled = args.scale * y[i];
      y[i] = x == nullptr ? scaled : scaled + x[i];
    }
  }
}

}  // namespace sluice
