// Activations to int8, to the bit as the numeric contract has them (kernels/README.md).
#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;
constexpr int kMostPerLane = 4;  // a group has at most 128 channels

// The largest magnitude of the lanes' values, NaN if one is.
__device__ float LargestMagnitude(const float (&values)[kMostPerLane]) {
  float largest = 0;
  for (float value : values) {
    const float magnitude = fabsf(value);
    if (magnitude > largest || magnitude != magnitude) largest = magnitude;
  }
  for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) {
    const float other = ShuffleXor(largest, mask);
    if (other > largest || other != other) largest = other;
  }
  return largest;
}

// One warp for each token and group.
__global__ void __launch_bounds__(kThreads) QuantizeKernel(QuantizeArgs args) {
  TakeTurn();
  const QuantizedActivations& out = args.out;
  const int64_t token = args.token_begin + BlockX();
  const int64_t group = BlockY() * (kThreads / kWarpThreads) + Warp();
  if (group >= out.groups) return;
  const int64_t begin = group * out.group_size;
  float values[kMostPerLane] = {};
  for (int j = 0; j < kMostPerLane; ++j) {
    const int64_t i = Lane() + j * kWarpThreads;
    if (i < out.group_size && begin + i < args.cols) {
      values[j] = args.x[token * args.x_stride + begin + i];
    }
  }
  const float largest = LargestMagnitude(values);
  const bool finite = largest <= 3.402823466e38f;
  const float inverse = finite && largest >= 1e-30f ? 127.0f / largest : 0.0f;
  int sum = 0;
  for (int j = 0; j < kMostPerLane; ++j) {
    const int64_t i = Lane() + j * kWarpThreads;
    if (i >= out.group_size || begin + i >= out.padded_cols) continue;
    int rounded = inverse == 0 ? 0 : RoundToInt(values[j] * inverse);
    rounded = rounded > 127 ? 127 : rounded < -127 ? -127 : rounded;
    out.values[token * out.padded_cols + begin + i] = static_cast<int8_t>(rounded);
    sum += rounded;
  }
  sum = WarpSum(sum);
  if (Lane() != 0) return;
  const float not_a_number = FloatFromBits(0x7fc00000u);
  out.scales[token * out.groups + group] = !finite            ? not_a_number
                                           : largest < 1e-30f ? 0.0f
                                                              : largest / 127.0f;
  out.sums[token * out.groups + group] = sum;
}

}  // namespace

void Quantize(const QuantizeArgs& args, CUstream_st* stream) {
  constexpr int64_t kWarps = kThreads / kWarpThreads;
  Launch<QuantizeKernel>(
      {args.token_end - args.token_begin, (args.out.groups + kWarps - 1) / kWarps}, kThreads, 0,
      stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
