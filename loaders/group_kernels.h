// The inner loops of quantization: a group of values on a grid. Private to loaders.
#ifndef SLUICE_LOADERS_GROUP_KERNELS_H_
#define SLUICE_LOADERS_GROUP_KERNELS_H_

#include <cstdint>
#include <span>

namespace sluice {

// value = scale * q + shift for the integers q from 0 to `levels`, at most 255.
struct QuantizationGrid {
  float scale = 0;
  float shift = 0;
  int32_t levels = 0;
};

// One set for each instruction set; all give the same bits. Values are finite; count >= 1.
struct GroupKernels {
  const char* name;
  void (*range)(const float* values, int64_t count, float* low, float* high);
  // The squared error of rounding to the grid: 16 sums in float32 of every sixteenth value, added
  // in pairs (l and l + 8, then l and l + 4, ...).
  float (*error)(const float* values, int64_t count, const QuantizationGrid& grid);
  // The nearest integer of each value, halves to even.
  void (*round)(const float* values, int64_t count, const QuantizationGrid& grid, uint8_t* codes);
};

// Those that this machine can run, the fastest last.
std::span<const GroupKernels> AvailableGroupKernels();

}  // namespace sluice

#endif  // SLUICE_LOADERS_GROUP_KERNELS_H_
