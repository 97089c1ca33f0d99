#include <cmath>

#include "kernels/ref/ref.h"

namespace sluice {

void LayerNormRef(const LayerNormArgs& args, CUstream_st*) {
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const float* x = args.x + token * args.x_stride;
    float* y = args.y + token * args.y_stride;
    double sum = 0;
    for (int64_t i = 0; i < args.width; ++i) sum += double{x[i]};
    const double mean = sum / static_cast<double>(args.width);
    double squares = 0;
    for (int64_t i = 0; i < args.width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double factor =
        1 / std::sqrt(squares / static_cast<double>(args.width) + double{args.eps});
    for (int64_t i = 0; i < args.width; ++i) {
      const auto normal = static_cast<float>((x[i] - mean) * factor);
      y[i] = normal * args.weight[i] + (args.bias == nullptr ? 0.0f : args.bias[i]);
    }
  }
}

}  // namespace sluice
