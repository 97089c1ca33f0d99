// The largest values of a row, emulated, against a sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/top_k.h"
#include "tests/support/numeric_contract.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using cuda_emulation::Order;
using cuda_emulation::SetOrder;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Indices of the `count` largest, by a stable sort in which NaN comes first.
std::vector<int32_t> Sorted(const float* x, int64_t width, int64_t count) {
  std::vector<int32_t> order(static_cast<size_t>(width));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    if (std::isnan(x[a]) || std::isnan(x[b])) return std::isnan(x[a]) && !std::isnan(x[b]);
    return x[a] > x[b];
  });
  order.resize(static_cast<size_t>(count));
  return order;
}

void ExpectSorted(const std::vector<float>& x, int64_t rows, int64_t count) {
  const auto stride = static_cast<int64_t>(x.size()) / rows;
  const int64_t width = rows == 1 ? stride : stride - 3;
  std::vector<float> values(static_cast<size_t>(rows * count));
  std::vector<int32_t> indices(values.size(), -1);
  cuda_emulation::TopK({x.data(), stride, rows, width, count, values.data(), indices.data()},
                       nullptr);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t> expected = Sorted(x.data() + row * stride, width, count);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(row * count + i);
      ASSERT_EQ(indices[at], expected[static_cast<size_t>(i)])
          << "place " << i << " of " << count << " in " << width;
      ASSERT_TRUE(test::SameBits(values[at], x[static_cast<size_t>(row * stride + indices[at])]));
    }
  }
}

TEST(CudaTopK, RandomRowsOfManyWidths) {
  std::mt19937 random(1);
  for (Order order : {Order::kAscending, Order::kShuffled}) {
    SetOrder(order);
    for (int64_t width : {1, 2, 255, 256, 511, 513, 5000}) {
      for (int64_t count : {1, 2, 40, 256}) {
        if (count > width) continue;
        const std::vector<float> x =
            test::RandomFloats(static_cast<size_t>(3 * (width + 3)), random, 10);
        ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 3, count));
      }
    }
  }
  SetOrder(Order::kAscending);
}

TEST(CudaTopK, EqualValuesComeByTheirIndex) {
  for (int64_t count : {1, 7, 100}) {
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(std::vector<float>(600, -2.5f), 1, count));
    std::vector<float> x(600);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 5);
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 2 == 0 ? -0.0f : 0.0f;
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
  }
}

TEST(CudaTopK, InfinitiesSubnormalsAndNaN) {
  std::vector<float> x = {1.0f,  -kInfinity, kInfinity, -1e-45f,   1e-45f,    0.0f,
                          -0.0f, 3e38f,      -3e38f,    kInfinity, -kInfinity};
  for (int64_t count = 1; count <= static_cast<int64_t>(x.size()); ++count) {
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
  }
  x[4] = kNaN;
  x[7] = -kNaN;
  ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, 3));
  ASSERT_NO_FATAL_FAILURE(ExpectSorted(std::vector<float>(50, -kInfinity), 1, 5));
}

}  // namespace
}  // namespace sluice
