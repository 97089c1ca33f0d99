#include "loaders/group_kernels.h"

#include <cstddef>
#include <cstring>
#include <vector>

namespace sluice {
namespace {

using Float4 = float __attribute__((vector_size(16)));
using Float8 = float __attribute__((vector_size(32)));
using Float16 = float __attribute__((vector_size(64)));

constexpr int64_t kLanes = 16;  // in each step, whatever the width of a register

// Adding and taking away 1.5 * 2^23 rounds a small number as the processor rounds: halves to even.
// In between its last bits are the integer.
constexpr float kRounder = 12582912.0f;

template <typename Vector>
struct Step {
  static constexpr int64_t kWidth = sizeof(Vector) / sizeof(float);
  static constexpr int64_t kVectors = kLanes / kWidth;
  Vector v[kVectors];
};

template <typename Vector>
[[gnu::always_inline]] inline void Load(const float* values, Step<Vector>* out) {
  std::memcpy(out->v, values, sizeof out->v);
}

// Rounds to the grid: kRounder + q.
template <typename Vector>
[[gnu::always_inline]] inline void Place(const Step<Vector>& x, const QuantizationGrid& grid,
                                         float inverse, Step<Vector>* out) {
  const Vector zero = {};
  const Vector top = zero + static_cast<float>(grid.levels);
  for (int64_t j = 0; j < Step<Vector>::kVectors; ++j) {
    Vector position = (x.v[j] - grid.shift) * inverse;
    position = position < zero ? zero : position;
    position = position > top ? top : position;
    out->v[j] = position + kRounder;
  }
}

template <typename Vector>
[[gnu::always_inline]] inline void AddError(const Step<Vector>& x, const QuantizationGrid& grid,
                                            float inverse, Step<Vector>* sums) {
  Step<Vector> placed;
  Place(x, grid, inverse, &placed);
  for (int64_t j = 0; j < Step<Vector>::kVectors; ++j) {
    const Vector difference = x.v[j] - ((placed.v[j] - kRounder) * grid.scale + grid.shift);
    sums->v[j] += difference * difference;
  }
}

// The last values of a group, filled up with one that is on the grid.
[[gnu::always_inline]] inline void LoadTail(const float* values, int64_t count, float filling,
                                            float* out) {
  for (int64_t i = 0; i < kLanes; ++i) out[i] = i < count ? values[i] : filling;
}

[[gnu::always_inline]] inline float InverseOf(const QuantizationGrid& grid) {
  return grid.scale != 0 ? 1.0f / grid.scale : 0.0f;
}

template <typename Vector>
[[gnu::always_inline]] inline float ErrorWith(const float* values, int64_t count,
                                              const QuantizationGrid& grid) {
  const float inverse = InverseOf(grid);
  Step<Vector> sums = {};
  Step<Vector> x;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Load(values + i, &x);
    AddError(x, grid, inverse, &sums);
  }
  float lanes[kLanes];
  if (i < count) {
    LoadTail(values + i, count - i, grid.shift, lanes);
    Load(lanes, &x);
    AddError(x, grid, inverse, &sums);
  }
  std::memcpy(lanes, sums.v, sizeof lanes);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

template <typename Vector>
[[gnu::always_inline]] inline void RoundStep(const float* values, const QuantizationGrid& grid,
                                             float inverse, uint8_t* codes) {
  Step<Vector> x, placed;
  Load(values, &x);
  Place(x, grid, inverse, &placed);
  uint32_t bits[kLanes];
  std::memcpy(bits, placed.v, sizeof bits);
  for (int64_t l = 0; l < kLanes; ++l) codes[l] = static_cast<uint8_t>(bits[l]);
}

template <typename Vector>
[[gnu::always_inline]] inline void RoundWith(const float* values, int64_t count,
                                             const QuantizationGrid& grid, uint8_t* codes) {
  const float inverse = InverseOf(grid);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) RoundStep<Vector>(values + i, grid, inverse, codes + i);
  if (i == count) return;
  float tail[kLanes];
  uint8_t tail_codes[kLanes];
  LoadTail(values + i, count - i, grid.shift, tail);
  RoundStep<Vector>(tail, grid, inverse, tail_codes);
  std::memcpy(codes + i, tail_codes, static_cast<size_t>(count - i));
}

template <typename Vector>
[[gnu::always_inline]] inline void Widen(const Step<Vector>& x, Step<Vector>* low,
                                         Step<Vector>* high) {
  for (int64_t j = 0; j < Step<Vector>::kVectors; ++j) {
    low->v[j] = x.v[j] < low->v[j] ? x.v[j] : low->v[j];
    high->v[j] = x.v[j] > high->v[j] ? x.v[j] : high->v[j];
  }
}

template <typename Vector>
[[gnu::always_inline]] inline void RangeWith(const float* values, int64_t count, float* low,
                                             float* high) {
  float lanes[kLanes];
  LoadTail(values, count, values[0], lanes);
  Step<Vector> x, lows, highs;
  Load(lanes, &lows);
  highs = lows;
  int64_t i = kLanes;
  for (; i + kLanes <= count; i += kLanes) {
    Load(values + i, &x);
    Widen(x, &lows, &highs);
  }
  if (i < count) {
    LoadTail(values + i, count - i, values[0], lanes);
    Load(lanes, &x);
    Widen(x, &lows, &highs);
  }
  float high_lanes[kLanes];
  std::memcpy(lanes, lows.v, sizeof lanes);
  std::memcpy(high_lanes, highs.v, sizeof high_lanes);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) {
      lanes[l] = lanes[l + half] < lanes[l] ? lanes[l + half] : lanes[l];
      high_lanes[l] = high_lanes[l + half] > high_lanes[l] ? high_lanes[l + half] : high_lanes[l];
    }
  }
  *low = lanes[0];
  *high = high_lanes[0];
}

float ErrorPlain(const float* values, int64_t count, const QuantizationGrid& grid) {
  return ErrorWith<Float4>(values, count, grid);
}
void RoundPlain(const float* values, int64_t count, const QuantizationGrid& grid, uint8_t* codes) {
  RoundWith<Float4>(values, count, grid, codes);
}
void RangePlain(const float* values, int64_t count, float* low, float* high) {
  RangeWith<Float4>(values, count, low, high);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] float ErrorAvx2(const float* values, int64_t count,
                                        const QuantizationGrid& grid) {
  return ErrorWith<Float8>(values, count, grid);
}
[[gnu::target("avx2")]] void RoundAvx2(const float* values, int64_t count,
                                       const QuantizationGrid& grid, uint8_t* codes) {
  RoundWith<Float8>(values, count, grid, codes);
}
[[gnu::target("avx2")]] void RangeAvx2(const float* values, int64_t count, float* low,
                                       float* high) {
  RangeWith<Float8>(values, count, low, high);
}
[[gnu::target("avx512f")]] float ErrorAvx512(const float* values, int64_t count,
                                             const QuantizationGrid& grid) {
  return ErrorWith<Float16>(values, count, grid);
}
[[gnu::target("avx512f")]] void RoundAvx512(const float* values, int64_t count,
                                            const QuantizationGrid& grid, uint8_t* codes) {
  RoundWith<Float16>(values, count, grid, codes);
}
[[gnu::target("avx512f")]] void RangeAvx512(const float* values, int64_t count, float* low,
                                            float* high) {
  RangeWith<Float16>(values, count, low, high);
}
#endif

std::vector<GroupKernels> MakeList() {
  std::vector<GroupKernels> list = {{"plain", RangePlain, ErrorPlain, RoundPlain}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) list.push_back({"avx2", RangeAvx2, ErrorAvx2, RoundAvx2});
  if (__builtin_cpu_supports("avx512f")) {
    list.push_back({"avx512", RangeAvx512, ErrorAvx512, RoundAvx512});
  }
#endif
  return list;
}

}  // namespace

std::span<const GroupKernels> AvailableGroupKernels() {
  static const std::vector<GroupKernels> list = MakeList();
  return list;
}

}  // namespace sluice
