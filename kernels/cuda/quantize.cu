#include "kernels/cuda/launchers.h"
#include "kernels/cuda/rows.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) QuantizeKernel(QuantizeArgs args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const int quad = static_cast<int>(BlockY()) * kThreads + ThreadIndex();
  const Quad x = LoadQuad(args.x + token * args.x_stride, quad, static_cast<int>(args.cols));
  QuantizeQuad(x, quad, token, args.out);
}

}  // namespace

void Quantize(const QuantizeArgs& args, CUstream_st* stream) {
  constexpr int64_t kChannels = kThreads * kQuad;
  Launch<QuantizeKernel>(
      {args.token_end - args.token_begin, (args.out.padded_cols + kChannels - 1) / kChannels},
      kThreads, 0, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
