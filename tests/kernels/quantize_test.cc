#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/select.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using test::ActivationBuffer;

constexpr int64_t kCols[] = {1,  2,  15, 16,  17,  31,  32,  33,  63,  64,  65,
                             95, 96, 97, 127, 128, 129, 160, 255, 257, 576, 1536};
constexpr int64_t kGroups[] = {16, 32, 64, 128};

// Quantizes with the table, and each token with the contract; every value must be the same.
void ExpectContract(const OpTable& table, const std::vector<float>& x, int64_t tokens, int64_t cols,
                    int64_t stride) {
  for (int64_t group : kGroups) {
    ActivationBuffer actual(tokens, cols, group);
    ActivationBuffer expected(tokens, cols, group);
    table.quantize({x.data(), stride, cols, actual.view(), 0, tokens}, nullptr);
    for (int64_t token = 0; token < tokens; ++token) {
      test::ContractQuantize(x.data() + token * stride, cols, token, &expected);
    }
    ASSERT_EQ(actual.values, expected.values) << table.name << " " << cols << " by " << group;
    ASSERT_EQ(actual.sums, expected.sums) << table.name << " " << cols << " by " << group;
    for (size_t i = 0; i < expected.scales.size(); ++i) {
      ASSERT_TRUE(test::SameBits(actual.scales[i], expected.scales[i]))
          << table.name << " " << cols << " by " << group << ": " << actual.scales[i] << ", not "
          << expected.scales[i];
    }
  }
}

TEST(Quantize, EveryTableDoesWhatTheContractSays) {
  std::mt19937 random(1);
  for (const OpTable* table : AvailableTables()) {
    for (int64_t cols : kCols) {
      const int64_t stride = cols + 3;
      ExpectContract(*table, test::RandomFloats(static_cast<size_t>(5 * stride), random), 5, cols,
                     stride);
    }
  }
}

TEST(Quantize, TiesGoToTheEvenInteger) {
  std::vector<float> x(128);
  for (int i = 0; i < 128; ++i) x[static_cast<size_t>(i)] = static_cast<float>(i - 64) + 0.5f;
  x[0] = 127;  // the scale is 1 where this is in the group
  for (const OpTable* table : AvailableTables()) {
    ExpectContract(*table, x, 1, 128, 128);
    ActivationBuffer buffer(1, 128, 128);
    table->quantize({x.data(), 128, 128, buffer.view(), 0, 1}, nullptr);
    EXPECT_EQ(buffer.values[64], 0);   // 0.5
    EXPECT_EQ(buffer.values[65], 2);   // 1.5
    EXPECT_EQ(buffer.values[66], 2);   // 2.5
    EXPECT_EQ(buffer.values[63], 0);   // -0.5
    EXPECT_EQ(buffer.values[62], -2);  // -1.5
  }
}

TEST(Quantize, ValuesThatAreNotFiniteMakeTheirGroupNaNAndNoOther) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
    for (int64_t cols : {33, 64, 97, 257}) {
      for (int64_t place = 0; place < cols; place += 7) {
        std::vector<float> x(static_cast<size_t>(cols), 1.0f);
        x[static_cast<size_t>(place)] = bad;
        for (const OpTable* table : AvailableTables()) ExpectContract(*table, x, 1, cols, cols);
      }
    }
  }
}

TEST(Quantize, ZerosTinyAndHugeValues) {
  for (float size : {0.0f, -0.0f, 1e-45f, 9.9e-31f, 1e-30f, 1.1e-30f, 1e-20f, 1e30f, 3.4e38f}) {
    std::vector<float> x(160);
    for (size_t i = 0; i < x.size(); ++i) x[i] = (i % 3 == 0 ? -size : size / 3);
    for (const OpTable* table : AvailableTables()) ExpectContract(*table, x, 1, 160, 160);
  }
}

TEST(Quantize, ATokenOutsideOfTheRangeIsNotTouched) {
  const std::vector<float> x(4 * 40, 1.0f);
  for (const OpTable* table : AvailableTables()) {
    ActivationBuffer buffer(4, 40, 32);
    table->quantize({x.data(), 40, 40, buffer.view(), 1, 3}, nullptr);
    for (int64_t token : {0, 3}) {
      for (int64_t k = 0; k < 64; ++k) {
        ASSERT_EQ(buffer.values[static_cast<size_t>(token * 64 + k)], 77);
      }
      EXPECT_EQ(buffer.sums[static_cast<size_t>(token * 2)], 77);
      EXPECT_EQ(buffer.scales[static_cast<size_t>(token * 2 + 1)], 77.0f);
    }
    EXPECT_EQ(buffer.sums[2], 32 * 127);
    EXPECT_EQ(buffer.sums[3], 8 * 127);
  }
}

}  // namespace
}  // namespace sluice
