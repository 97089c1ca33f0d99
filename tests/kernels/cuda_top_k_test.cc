// The largest values of a row, emulated, against a sort.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/launchers.h"
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
  std::vector<float> weight_sums(static_cast<size_t>(rows), -1.0f);
  cuda_emulation::TopK(
      {x.data(), stride, rows, width, count, values.data(), indices.data(), weight_sums.data()},
      nullptr);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t> expected = Sorted(x.data() + row * stride, width, count);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(row * count + i);
      ASSERT_EQ(indices[at], expected[static_cast<size_t>(i)])
          << "place " << i << " of " << count << " in " << width;
      ASSERT_TRUE(test::SameBits(values[at], x[static_cast<size_t>(row * stride + indices[at])]));
    }
    const float largest = values[static_cast<size_t>(row * count)];
    if (!std::isfinite(largest)) continue;
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) {
      sum += std::exp(double{x[static_cast<size_t>(row * stride + i)]} - double{largest});
    }
    // A thread adds up to ceil(width / 512) values, 9 more additions make one sum of them; each
    // exponential is good to 2 units in the last place, and its argument rounds once.
    const double terms = static_cast<double>(width) / 512 + 16;
    ASSERT_NEAR(weight_sums[static_cast<size_t>(row)], sum, sum * 1.2e-7 * (terms + 30));
  }
}

TEST(CudaTopK, RandomRowsOfManyWidths) {
  std::mt19937 random(1);
  for (Order order : cuda_emulation::kAllOrders) {
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

// All that is large lies where few threads look: more than there is room for reaches their bound.
TEST(CudaTopK, LargeValuesInAFewPlacesOfEachThreadsStride) {
  std::mt19937 random(2);
  for (int64_t count : {1, 5, 40, 256}) {
    std::vector<float> x = test::RandomFloats(512 * 30, random, 1);
    for (size_t i = 0; i < x.size(); ++i) {
      if (i % 512 >= 300) continue;
      x[i] += i % 512 < 60 ? 100.0f : -100.0f;
    }
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
    std::sort(x.begin(), x.end());
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
    std::reverse(x.begin(), x.end());
    ASSERT_NO_FATAL_FAILURE(ExpectSorted(x, 1, count));
  }
}

}  // namespace
}  // namespace sluice
