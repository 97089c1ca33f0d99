#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

struct RmsNormWork {
  RmsNormArgs args;
  QuantizedActivations quantized;
};

// One block for each token.
__global__ void __launch_bounds__(1024) RmsNormKernel(RmsNormWork work) {
  const RmsNormArgs& args = work.args;
  const auto width = static_cast<int>(args.width);
  // Of most rows all that the thread needs, on its way while earlier work ends.
  const Quad first_weight = LoadQuad(args.weight, ThreadIndex(), width);
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const float* x = args.x + token * args.x_stride;
  float* y = args.y + token * args.y_stride;
  const int quads = QuadsOf(width, work.quantized);
  float squares = 0;
  for (int quad = ThreadIndex(); quad < quads; quad += BlockThreads()) {
    const Quad values = LoadQuad(x, quad, width);
#pragma unroll
    for (float value : values.value) squares = fmaf(value, value, squares);
  }
  squares = BlockSum(squares, SharedMemory<float>());
  const float factor = 1.0f / sqrtf(squares / static_cast<float>(width) + args.eps);
  for (int quad = ThreadIndex(); quad < quads; quad += BlockThreads()) {
    Quad values = LoadQuad(x, quad, width);
    const Quad weight = quad == ThreadIndex() ? first_weight : LoadQuad(args.weight, quad, width);
    const Quad before = args.add_to_y ? LoadQuad(y, quad, width) : Quad{};
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      const float value = values.value[i] * factor * weight.value[i];
      values.value[i] = args.add_to_y ? before.value[i] + value : value;
    }
    StoreQuad(values, quad, width, y);
    if (work.quantized.values != nullptr) QuantizeQuad(values, quad, token, work.quantized);
  }
}

}  // namespace

void RmsNorm(const RmsNormArgs& args, CUstream_st* stream) {
  const int threads = ThreadsOfRow(args.width);
  Launch<RmsNormKernel>({args.token_end - args.token_begin}, threads, kBlockSumBytes, stream,
                        {args, QuantizedOrNone(args.quantized)});
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
