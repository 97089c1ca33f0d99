#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/ref/ref.h"

namespace sluice {
namespace {

// Largest magnitude; NaN if there is one.
float MaxMagnitude(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t k = 0; k < count; ++k) {
    if (std::isnan(x[k])) return x[k];
    largest = std::max(largest, std::fabs(x[k]));
  }
  return largest;
}

}  // namespace

void QuantizeRef(const QuantizeArgs& args, CUstream_st*) {
  const QuantizedActivations& out = args.out;
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    int8_t* values = out.values + token * out.padded_cols;
    std::fill(values, values + out.padded_cols, int8_t{0});
    for (int64_t group = 0; group < out.groups; ++group) {
      const int64_t begin = std::min(group * out.group_size, args.cols);
      const int64_t end = std::min(begin + out.group_size, args.cols);
      const float* x = args.x + token * args.x_stride;
      const float largest = MaxMagnitude(x + begin, end - begin);
      float scale = 0;
      int32_t sum = 0;
      if (!std::isfinite(largest)) {
        scale = std::numeric_limits<float>::quiet_NaN();
      } else if (largest >= 1e-30f) {
        scale = largest / 127.0f;
        const float inverse = 127.0f / largest;
        for (int64_t k = begin; k < end; ++k) {
          const float rounded = std::nearbyint(x[k] * inverse);  // ties to even
          values[k] = static_cast<int8_t>(std::clamp(rounded, -127.0f, 127.0f));
          sum += values[k];
        }
      }
      out.scales[token * out.groups + group] = scale;
      out.sums[token * out.groups + group] = sum;
    }
  }
}

}  // namespace sluice
