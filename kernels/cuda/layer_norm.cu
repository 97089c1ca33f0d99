#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpThreads;

// One block for each token: first the mean, then the squares of what differs from it.
__global__ void __launch_bounds__(kThreads) LayerNormKernel(LayerNormArgs args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const float* x = args.x + token * args.x_stride;
  float* y = args.y + token * args.y_stride;
  const auto width = static_cast<float>(args.width);
  auto* shared = SharedMemory<float>();
  float sum = 0;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) sum += x[i];
  const float mean = BlockSum(sum, shared) / width;
  float squares = 0;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    squares = fmaf(x[i] - mean, x[i] - mean, squares);
  }
  squares = BlockSum(squares, shared + kWarps);
  const float factor = 1.0f / sqrtf(squares / width + args.eps);
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const float bias = args.bias == nullptr ? 0.0f : args.bias[i];
    y[i] = (x[i] - mean) * factor * args.weight[i] + bias;
  }
}

}  // namespace

void LayerNorm(const LayerNormArgs& args, CUstream_st* stream) {
  Launch<LayerNormKernel>({args.token_end - args.token_begin}, kThreads, 2 * kWarps * sizeof(float),
                          stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
