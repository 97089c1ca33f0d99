#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

struct LayerNormWork {
  LayerNormArgs args;
  QuantizedActivations quantized;
};

// One block for each token: first the mean, then the squares of what differs from it.
__global__ void __launch_bounds__(1024) LayerNormKernel(LayerNormWork work) {
  TakeTurn();
  const LayerNormArgs& args = work.args;
  const int64_t token = args.token_begin + BlockX();
  const float* x = args.x + token * args.x_stride;
  float* y = args.y + token * args.y_stride;
  const auto width = static_cast<int>(args.width);
  const int quads = QuadsOf(width, work.quantized);
  auto* shared = SharedMemory<float>();
  float sum = 0;
  for (int quad = ThreadIndex(); quad < quads; quad += BlockThreads()) {
    const Quad values = LoadQuad(x, quad, width);
#pragma unroll
    for (float value : values.value) sum += value;
  }
  const float mean = BlockSum(sum, shared) / static_cast<float>(width);
  float squares = 0;
  for (int quad = ThreadIndex(); quad < quads; quad += BlockThreads()) {
    const Quad values = LoadQuad(x, quad, width);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const float apart = quad * kQuad + i < width ? values.value[i] - mean : 0.0f;
      squares = fmaf(apart, apart, squares);
    }
  }
  squares = BlockSum(squares, shared + kWarpThreads);
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + args.eps);
  for (int quad = ThreadIndex(); quad < quads; quad += BlockThreads()) {
    Quad values = LoadQuad(x, quad, width);
    const Quad weight = LoadQuad(args.weight, quad, width);
    const Quad bias = args.bias == nullptr ? Quad{} : LoadQuad(args.bias, quad, width);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const bool there = quad * kQuad + i < width;
      values.value[i] =
          there ? (values.value[i] - mean) * factor * weight.value[i] + bias.value[i] : 0.0f;
    }
    StoreQuad(values, quad, width, y);
    if (work.quantized.values != nullptr) QuantizeQuad(values, quad, token, work.quantized);
  }
}

}  // namespace

void LayerNorm(const LayerNormArgs& args, CUstream_st* stream) {
  const int threads = ThreadsOfRow(args.width);
  Launch<LayerNormKernel>({args.token_end - args.token_begin}, threads, 2 * kBlockSumBytes, stream,
                          {args, QuantizedOrNone(args.quantized)});
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
