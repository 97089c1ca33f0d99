#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) ScaleAddKernel(ScaleAddArgs args) {
  TakeTurn();
  const int64_t i = BlockY() * kThreads + ThreadIndex();
  if (i >= args.width) return;
  const int64_t token = args.token_begin + BlockX();
  float& y = args.y[token * args.y_stride + i];
  const float scaled = args.scale * y;
  y = args.x == nullptr ? scaled : scaled + args.x[token * args.x_stride + i];
}

}  // namespace

void ScaleAdd(const ScaleAddArgs& args, CUstream_st* stream) {
  Launch<ScaleAddKernel>(
      {args.token_end - args.token_begin, (args.width + kThreads - 1) / kThreads}, kThreads, 0,
      stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
