#include <cmath>

#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) SoftcapKernel(SoftcapArgs args) {
  TakeTurn();
  const int64_t i = args.begin + BlockX() * kThreads + ThreadIndex();
  if (i < args.end) args.x[i] = args.cap * tanhf(args.x[i] / args.cap);
}

}  // namespace

void Softcap(const SoftcapArgs& args, CUstream_st* stream) {
  Launch<SoftcapKernel>({(args.end - args.begin + kThreads - 1) / kThreads}, kThreads, 0, stream,
                        args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
