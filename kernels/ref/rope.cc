#include <cmath>

#include "kernels/ref/ref.h"

namespace sluice {

// Su et al., 2021, with the pairing of GPT-NeoX: element i turns with element i + dim / 2.
void RopeRef(const RopeArgs& args, CUstream_st*) {
  const int64_t half = args.dim / 2;
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(args.positions[token]) * args.frequencies[i];
      const float cosine = std::cos(angle) * args.magnitude;
      const float sine = std::sin(angle) * args.magnitude;
      for (int64_t head = 0; head < args.heads; ++head) {
        float* x = args.x + token * args.x_stride + head * args.head_dim;
        const float first = x[i];
        const float second = x[i + half];
        x[i] = first * cosine - second * sine;
        x[i + half] = second * cosine + first * sine;
      }
    }
  }
}

}  // namespace sluice
