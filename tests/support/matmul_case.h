// Calls of matrix multiplications with random operands of awkward sizes: what the tests of all
// products share.
#ifndef SLUICE_TESTS_SUPPORT_MATMUL_CASE_H_
#define SLUICE_TESTS_SUPPORT_MATMUL_CASE_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/weight_matrix.h"

namespace sluice::test {

struct MatmulCase {
  WeightMatrix matrix;
  int64_t rows = 0, cols = 0, tokens = 0, x_stride = 0, y_stride = 0;
  std::vector<float> x, bias, y_before;
  bool has_bias = false, add_to_y = false;
  int64_t block_begin = 0, block_end = 0;

  const WeightType& type() const { return matrix.layout.type; }
  // The channels that the blocks are.
  int64_t channel_begin() const { return block_begin * 128; }
  int64_t channel_end() const { return std::min(cols, block_end * 128); }
  size_t At(int64_t token, int64_t row) const {
    return static_cast<size_t>(token * y_stride + row);
  }
  // What is added to the products; 0 where nothing is.
  float BiasOf(int64_t row) const { return has_bias ? bias[static_cast<size_t>(row)] : 0; }
  float BeforeOf(int64_t token, int64_t row) const {
    return add_to_y ? y_before[At(token, row)] : 0;
  }
};

// Strides, bias, adding and the range of blocks are drawn. Types with super-blocks get the next
// number of columns that they have.
MatmulCase MakeMatmulCase(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens,
                          uint32_t seed);

std::string Describe(const OpTable& table, const MatmulCase& c);

// The weights of a row's channels from channel_begin to channel_end, without rounding.
std::vector<ExactWeight> ExactRow(const MatmulCase& c, int64_t row);

enum class Products { kMatmul, kMatmulBf16 };

// Activations as the table rounds them, two ranges of tokens at a time; every element has a value.
std::vector<uint16_t> RoundedToBf16(const OpTable& table, const std::vector<float>& x,
                                    int64_t x_stride, int64_t cols, int64_t tokens);

// y of the tokens [token_begin, token_end), tiles `step` at a time. Expects that what lies between
// the tokens' results stays as it was.
std::vector<float> Multiply(const OpTable& table, const MatmulCase& c, Products products,
                            int64_t token_begin, int64_t token_end, int64_t step);
// Of all tokens and tiles at once.
std::vector<float> Multiply(const OpTable& table, const MatmulCase& c, Products products);

// Expects the same bits from batches of each of these sizes, with tiles in parts.
void ExpectTheSameInBatches(const OpTable& table, const MatmulCase& c, Products products,
                            std::span<const int64_t> batches);

// Expects that a NaN and an infinity in one token make its results no numbers, and that the bits of
// the others stay. `c` has more than 5 tokens and 161 columns.
void ExpectNoNumbersToStayWithTheirToken(const OpTable& table, const MatmulCase& c,
                                         Products products);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_MATMUL_CASE_H_
