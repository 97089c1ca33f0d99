// The numeric contract of kernels/README.md, one number at a time, from the codes of the weights:
// shares no code and no layout with the kernels.
#ifndef SLUICE_TESTS_SUPPORT_NUMERIC_CONTRACT_H_
#define SLUICE_TESTS_SUPPORT_NUMERIC_CONTRACT_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/weight_matrix.h"

namespace sluice::test {

// Owns what a QuantizedActivations points to.
struct ActivationBuffer {
  ActivationBuffer(int64_t tokens, int64_t cols, int64_t group_size);
  QuantizedActivations view() {
    return {values.data(), scales.data(), sums.data(), group_size, groups, padded_cols};
  }

  int64_t group_size, groups, padded_cols;
  std::vector<int8_t> values;
  std::vector<float> scales;
  std::vector<int32_t> sums;
};

// One token, `x` of [cols], quantized into token `token` of the buffer.
void ContractQuantize(const float* x, int64_t cols, int64_t token, ActivationBuffer* out);

// The sum over the blocks [begin, end) for one row and one token, before bias and y.
float ContractQuantizedDot(const WeightMatrix& matrix, int64_t row, const ActivationBuffer& x,
                           int64_t token, int64_t block_begin, int64_t block_end);
float ContractFloatDot(const WeightMatrix& matrix, int64_t row, const float* x, int64_t block_begin,
                       int64_t block_end);

// The same number to the bit, where any NaN is the same as any other.
bool SameBits(float a, float b);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_NUMERIC_CONTRACT_H_
