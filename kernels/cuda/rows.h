// Operations on rows: four neighbouring elements to a thread, which a load or store moves at once
// where their address allows it. So a warp has 128 channels, whole groups of int8 activations.
#ifndef SLUICE_KERNELS_CUDA_ROWS_H_
#define SLUICE_KERNELS_CUDA_ROWS_H_

#include <cmath>

#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr int kQuad = 4;

struct alignas(16) Quad {
  float value[kQuad];
};

// Elements [4 quad, 4 quad + 4) of a row; zeros beyond its width.
__device__ __forceinline__ Quad LoadQuad(const float* row, int quad, int width) {
  const bool aligned = reinterpret_cast<uintptr_t>(row) % sizeof(Quad) == 0;
  if (aligned && (quad + 1) * kQuad <= width) return reinterpret_cast<const Quad*>(row)[quad];
  Quad values = {};
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (quad * kQuad + i < width) values.value[i] = row[quad * kQuad + i];
  }
  return values;
}

__device__ __forceinline__ void StoreQuad(const Quad& values, int quad, int width, float* row) {
  const bool aligned = reinterpret_cast<uintptr_t>(row) % sizeof(Quad) == 0;
  if (aligned && (quad + 1) * kQuad <= width) {
    reinterpret_cast<Quad*>(row)[quad] = values;
    return;
  }
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (quad * kQuad + i < width) row[quad * kQuad + i] = values.value[i];
  }
}

// Quads of a row that a block goes through: whole warps, up to the end of the quantized row if
// there is one.
inline __device__ int QuadsOf(int64_t width, const QuantizedActivations& quantized) {
  constexpr int kWarpChannels = kQuad * kWarpThreads;
  const auto channels =
      static_cast<int>(quantized.values == nullptr ? width : quantized.padded_cols);
  return (channels + kWarpChannels - 1) / kWarpChannels * kWarpThreads;
}

// The threads of a block that takes one row: one for each quad, if that many can be.
inline int ThreadsOfRow(int64_t width) {
  constexpr int64_t kMost = 1024;
  const int64_t warps = (width + kQuad * kWarpThreads - 1) / (kQuad * kWarpThreads);
  return static_cast<int>(warps * kWarpThreads < kMost ? warps * kWarpThreads : kMost);
}

// What the last argument of an operation asks for, by value.
inline QuantizedActivations QuantizedOrNone(const QuantizedActivations* quantized) {
  return quantized == nullptr ? QuantizedActivations{} : *quantized;
}

// The four channels of each lane to int8, to the bit as the numeric contract has them
// (kernels/README.md). Values beyond the row's width are zeros. All lanes of the warp call it, with
// quads in order from a multiple of 32 on.
__device__ __forceinline__ void QuantizeQuad(const Quad& x, int quad, int64_t token,
                                             const QuantizedActivations& out) {
  const int lanes = static_cast<int>(out.group_size) / kQuad;  // of a group
  float largest = 0;                                           // magnitude; NaN if one is
#pragma unroll
  for (float value : x.value) {
    const float magnitude = fabsf(value);
    if (magnitude > largest || magnitude != magnitude) largest = magnitude;
  }
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    const float other = ShuffleXor(largest, mask);
    if (other > largest || other != other) largest = other;
  }
  const bool finite = largest <= 3.402823466e38f;
  const float inverse = finite && largest >= 1e-30f ? 127.0f / largest : 0.0f;
  int sum = 0;
  uint32_t bytes = 0;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    int rounded = inverse == 0 ? 0 : RoundToInt(x.value[i] * inverse);
    rounded = rounded > 127 ? 127 : rounded < -127 ? -127 : rounded;
    bytes |= (static_cast<uint32_t>(rounded) & 0xffu) << (8 * i);
    sum += rounded;
  }
  for (int mask = lanes / 2; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
  if (quad * kQuad < out.padded_cols) {
    reinterpret_cast<uint32_t*>(out.values + token * out.padded_cols)[quad] = bytes;
  }
  const int group = quad / lanes;
  if (Lane() % lanes != 0 || group >= out.groups) return;
  const float not_a_number = FloatFromBits(0x7fc00000u);
  out.scales[token * out.groups + group] = !finite            ? not_a_number
                                           : largest < 1e-30f ? 0.0f
                                                              : largest / 127.0f;
  out.sums[token * out.groups + group] = sum;
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ROWS_H_
