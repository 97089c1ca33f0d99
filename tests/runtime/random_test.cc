// The generator of the draws, and exp as the sampler computes it.
#include "runtime/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "runtime/exp.h"

namespace sluice {
namespace {

TEST(Random, GivesThePublishedSequence) {
  // Computed by a transcription of the authors' C code into Python.
  Random zero(0);
  EXPECT_EQ(zero.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(zero.Next(), 0xbf6e1f784956452au);
  Random other(42);
  EXPECT_EQ(other.Next(), 0x15780b2e0c2ec716u);
  EXPECT_EQ(other.Next(), 0x6104d9866d113a7eu);
}

TEST(Random, UniformNumbersAreBelowOne) {
  Random random(1);
  double sum = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double number = random.NextUniform();
    ASSERT_GE(number, 0.0);
    ASSERT_LT(number, 1.0);
    sum += number;
  }
  EXPECT_NEAR(sum / 100'000, 0.5, 0.005);  // 5.5 standard deviations
}

TEST(Exp, IsWithinFourUnitsOfTheLastPlace) {
  EXPECT_EQ(ExpOfNonPositive(0.0), 1.0);
  EXPECT_EQ(ExpOfNonPositive(-std::numeric_limits<double>::infinity()), 0.0);
  EXPECT_EQ(ExpOfNonPositive(-701.0), 0.0);
  Random random(3);
  for (int i = 0; i < 200'000; ++i) {
    const double x = -700.0 * random.NextUniform() * (i % 2 == 0 ? 1.0 : 0.01);
    const double expected = std::exp(x);
    ASSERT_NEAR(ExpOfNonPositive(x), expected, 4 * 0x1p-52 * expected) << x;
  }
}

}  // namespace
}  // namespace sluice
