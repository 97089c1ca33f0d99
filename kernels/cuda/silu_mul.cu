#include <cmath>

#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) SiluMulKernel(SiluMulArgs args) {
  const int64_t i = BlockY() * kThreads + ThreadIndex();
  if (i >= args.width) return;
  const int64_t token = args.token_begin + BlockX();
  const float gate = args.gate[token * args.stride + i];
  const float up = args.up[token * args.stride + i];
  args.out[token * args.out_stride + i] = gate / (1.0f + expf(-gate)) * up;
}

}  // namespace

void SiluMul(const SiluMulArgs& args, CUstream_st* stream) {
  Launch<SiluMulKernel>({args.token_end - args.token_begin, (args.width + kThreads - 1) / kThreads},
                        kThreads, 0, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
