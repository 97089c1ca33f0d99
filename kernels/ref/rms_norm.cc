#include <cmath>

#include "kernels/ref/ref.h"

namespace sluice {

// Zhang and Sennrich, 2019: y = x / sqrt(mean of x^2 + eps) * weight.
void RmsNormRef(const RmsNormArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    float* y = args.y + token * args.y_stride;
    double squares = 0;
    for (int64_t i = 0; i < args.width; ++i) squares += double{x[i]} * double{x[i]};
    const double mean = squares / static_cast<double>(args.width);
    const auto factor = static_cast<float>(1 / std::sqrt(mean + double{args.eps}));
    for (int64_t i = 0; i < args.width; ++i) {
      const float value = x[i] * factor * args.weight[i];
      y[i] = args.add_to_y ? y[i] + value : value;
    }
  }
}

}  // namespace sluice
