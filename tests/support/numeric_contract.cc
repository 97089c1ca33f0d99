#include "tests/support/numeric_contract.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace sluice::test {

ActivationBuffer::ActivationBuffer(int64_t tokens, int64_t cols, int64_t group)
    : group_size(group),
      groups(((cols + 31) / 32 * 32 + group - 1) / group),
      padded_cols((cols + 31) / 32 * 32),
      values(static_cast<size_t>(tokens * padded_cols), 77),
      scales(static_cast<size_t>(tokens * groups), 77.0f),
      sums(static_cast<size_t>(tokens * groups), 77) {}

void ContractQuantize(const float* x, int64_t cols, int64_t token, ActivationBuffer* out) {
  for (int64_t group = 0; group < out->groups; ++group) {
    float largest = 0;
    bool finite = true;
    for (int64_t k = group * out->group_size; k < (group + 1) * out->group_size && k < cols; ++k) {
      finite = finite && std::isfinite(x[k]);
      if (std::fabs(x[k]) > largest) largest = std::fabs(x[k]);
    }
    float scale = std::numeric_limits<float>::quiet_NaN();
    if (finite) scale = largest < 1e-30f ? 0 : largest / 127;
    int32_t sum = 0;
    for (int64_t i = 0; i < out->group_size; ++i) {
      const int64_t k = group * out->group_size + i;
      if (k >= out->padded_cols) break;
      int32_t integer = 0;
      if (k < cols && scale > 0) {
        const float inverse = 127 / largest;
        const float product = x[k] * inverse;
        const double floor = std::floor(static_cast<double>(product));
        const double rest = product - floor;
        const auto below = static_cast<int32_t>(floor);
        const bool up = rest > 0.5 || (rest == 0.5 && below % 2 != 0);
        integer = std::min(127, std::max(-127, below + (up ? 1 : 0)));
      }
      out->values[static_cast<size_t>(token * out->padded_cols + k)] = static_cast<int8_t>(integer);
      sum += integer;
    }
    out->scales[static_cast<size_t>(token * out->groups + group)] = scale;
    out->sums[static_cast<size_t>(token * out->groups + group)] = sum;
  }
}

float ContractQuantizedDot(const WeightMatrix& matrix, int64_t row, const ActivationBuffer& x,
                           int64_t token, int64_t block_begin, int64_t block_end) {
  const WeightType& type = matrix.layout.type;
  const WeightRow& codes = matrix.rows[static_cast<size_t>(row)];
  const auto cols = static_cast<int64_t>(matrix.layout.cols);
  float acc = 0;
  for (int64_t group = 0; group < x.groups; ++group) {
    const int64_t first = group * x.group_size;
    if (first < block_begin * 128 || first >= block_end * 128) continue;
    int64_t products = 0;
    int64_t sum = 0;
    for (int64_t k = first; k < first + x.group_size && k < cols; ++k) {
      const int64_t integer = x.values[static_cast<size_t>(token * x.padded_cols + k)];
      products += codes.values[static_cast<size_t>(k)] * integer;
      sum += integer;
    }
    const size_t weight_group = type.group_size == 0 ? 0 : static_cast<size_t>(group);
    const auto [s, m] = ScaleOf(type, codes, weight_group);
    const float activation_scale = x.scales[static_cast<size_t>(token * x.groups + group)];
    if (type.offset == WeightOffset::kMinimum) {
      acc = std::fma(s * activation_scale, static_cast<float>(products), acc);
      acc = std::fma(m, activation_scale * static_cast<float>(sum), acc);
    } else {
      int64_t z = MiddleOf(type.kind);
      if (type.offset == WeightOffset::kZeroPoint) z = codes.offsets[weight_group];
      acc = std::fma(s * activation_scale, static_cast<float>(products - z * sum), acc);
    }
  }
  return acc;
}

float ContractFloatDot(const WeightMatrix& matrix, int64_t row, const float* x, int64_t block_begin,
                       int64_t block_end) {
  const auto cols = static_cast<int64_t>(matrix.layout.cols);
  float chains[2] = {0, 0};
  for (int64_t k = block_begin * 128; k < std::min(cols, block_end * 128); ++k) {
    const auto weight = static_cast<float>(
        WeightAt(matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k)).value);
    chains[k % 2] = std::fma(weight, x[k], chains[k % 2]);
  }
  return chains[0] + chains[1];
}

bool SameBits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

}  // namespace sluice::test
