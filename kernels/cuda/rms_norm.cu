#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

// One block for each token.
__global__ void __launch_bounds__(kThreads) RmsNormKernel(RmsNormArgs args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const float* x = args.x + token * args.x_stride;
  float* y = args.y + token * args.y_stride;
  float squares = 0;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads)
    squares = fmaf(x[i], x[i], squares);
  squares = BlockSum(squares, SharedMemory<float>());
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(args.width) + args.eps);
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const float value = x[i] * factor * args.weight[i];
    y[i] = args.add_to_y ? y[i] + value : value;
  }
}

}  // namespace

void RmsNorm(const RmsNormArgs& args, CUstream_st* stream) {
  Launch<RmsNormKernel>({args.token_end - args.token_begin}, kThreads,
                        kThreads / kWarpThreads * sizeof(float), stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
