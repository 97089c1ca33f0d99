#include <cmath>

#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostPairs = 256;  // whose cosine and sine are held at a time

// One block for each token: sines once for all heads.
__global__ void __launch_bounds__(kThreads, 1) RopeKernel(RopeArgs args) {
  TakeTurn();
  const int64_t token = args.token_begin + BlockX();
  const int64_t half = args.dim / 2;
  float* x = args.x + token * args.x_stride;
  auto* cosines = SharedMemory<float>();
  float* sines = cosines + kMostPairs;
  for (int64_t first_pair = 0; first_pair < half; first_pair += kMostPairs) {
    const int64_t pairs = half - first_pair < kMostPairs ? half - first_pair : kMostPairs;
    SyncThreads();
    for (int64_t i = ThreadIndex(); i < pairs; i += kThreads) {
      const float angle =
          static_cast<float>(args.positions[token]) * args.frequencies[first_pair + i];
      cosines[i] = cosf(angle) * args.magnitude;
      sines[i] = sinf(angle) * args.magnitude;
    }
    SyncThreads();
    for (int64_t i = ThreadIndex(); i < pairs * args.heads; i += kThreads) {
      const int64_t pair = i % pairs;
      float* low = x + i / pairs * args.head_dim + first_pair + pair;
      const float first = low[0];
      const float second = low[half];
      low[0] = first * cosines[pair] - second * sines[pair];
      low[half] = second * cosines[pair] + first * sines[pair];
    }
  }
}

}  // namespace

void Rope(const RopeArgs& args, CUstream_st* stream) {
  Launch<RopeKernel>({args.token_end - args.token_begin}, kThreads, 2 * kMostPairs * sizeof(float),
                     stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
