// Normalization, rotation, activation and the writing of the cache: every table against float64.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/select.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
const float kInfinity = std::numeric_limits<float>::infinity();
const float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(RmsNorm, AgreesWithFloat64AtAwkwardWidths) {
  std::mt19937 random(1);
  for (int64_t width : {1, 2, 7, 8, 9, 31, 33, 64, 127, 576, 1537, 8192}) {
    for (float size : {1.0f, 1e-4f, 1e12f}) {
      const int64_t stride = width + 2;
      const std::vector<float> x =
          test::RandomFloats(static_cast<size_t>(4 * stride), random, size);
      const std::vector<float> weight = test::RandomFloats(static_cast<size_t>(width), random);
      for (const OpTable* table : AvailableTables()) {
        std::vector<float> y(x.size(), -77.0f);
        table->rms_norm(
            {x.data(), stride, weight.data(), width, 1e-5f, false, y.data(), stride, 1, 3},
            nullptr);
        for (int64_t t = 0; t < 4; ++t) {
          double squares = 0;
          for (int64_t i = 0; i < width; ++i) {
            const double value = x[static_cast<size_t>(t * stride + i)];
            squares += value * value;
          }
          const double root = std::sqrt(squares / static_cast<double>(width) + double{1e-5f});
          for (int64_t i = 0; i < stride; ++i) {
            const size_t at = static_cast<size_t>(t * stride + i);
            if (t == 0 || t == 3 || i >= width) {
              ASSERT_EQ(y[at], -77.0f) << table->name;
              continue;
            }
            // Sums of squares have no cancellation: half an epsilon for each of the last roundings
            // and half of the relative error of the sum, at most width / 2 roundings.
            const double expected = x[at] / root * weight[static_cast<size_t>(i)];
            const double bound =
                std::fabs(expected) * (4 + static_cast<double>(width) / 4) * kEpsilon;
            ASSERT_TRUE(std::fabs(y[at] - expected) <= bound) << table->name << " " << width;
          }
        }
      }
    }
  }
}

TEST(RmsNorm, ZerosStayZeroAndANaNSpreads) {
  for (const OpTable* table : AvailableTables()) {
    std::vector<float> x(2 * 19, 0.0f);
    x[19 + 17] = kNaN;
    const std::vector<float> weight(19, 2.0f);
    std::vector<float> y(x.size());
    table->rms_norm({x.data(), 19, weight.data(), 19, 1e-6f, false, y.data(), 19, 0, 2}, nullptr);
    for (size_t i = 0; i < 19; ++i) {
      EXPECT_EQ(y[i], 0.0f);
      EXPECT_TRUE(std::isnan(y[19 + i])) << table->name;
    }
  }
}

// The angle is a float32 product by definition; cos and sin may be off by two of their last places.
TEST(Rope, AgreesWithFloat64) {
  std::mt19937 random(2);
  struct Shape {
    int64_t heads, head_dim, dim;
  };
  for (const Shape& s : {Shape{1, 2, 2}, Shape{3, 64, 64}, Shape{2, 80, 32}, Shape{5, 10, 10},
                         Shape{2, 128, 128}, Shape{3, 18, 6}, Shape{1, 300, 298}}) {
    std::vector<float> frequencies;
    for (int64_t i = 0; i < s.dim / 2; ++i) {
      frequencies.push_back(static_cast<float>(
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(s.dim))));
    }
    const std::vector<int32_t> positions = {0, 1, 2, 4095, 131071, 7, 1000000};
    const int64_t stride = s.heads * s.head_dim + 1;
    const std::vector<float> before =
        test::RandomFloats(positions.size() * static_cast<size_t>(stride), random);
    const float magnitude = 1.25f;
    for (const OpTable* table : AvailableTables()) {
      std::vector<float> x = before;
      table->rope({x.data(), stride, positions.data(), frequencies.data(), magnitude, s.heads,
                   s.head_dim, s.dim, 0, static_cast<int64_t>(positions.size())},
                  nullptr);
      for (size_t t = 0; t < positions.size(); ++t) {
        for (int64_t element = 0; element < stride; ++element) {
          const size_t at = t * static_cast<size_t>(stride) + static_cast<size_t>(element);
          const int64_t in_head = element % s.head_dim;
          if (element >= s.heads * s.head_dim || in_head >= s.dim) {
            ASSERT_EQ(x[at], before[at]) << table->name;
            continue;
          }
          const int64_t half = s.dim / 2;
          const bool first = in_head < half;
          const auto i = static_cast<size_t>(first ? in_head : in_head - half);
          const double other =
              before[first ? at + static_cast<size_t>(half) : at - static_cast<size_t>(half)];
          const float angle = static_cast<float>(positions[t]) * frequencies[i];
          const double cosine = std::cos(double{angle}) * magnitude;
          const double sine = std::sin(double{angle}) * magnitude;
          const double expected = before[at] * cosine + (first ? -1 : 1) * other * sine;
          const double bound =
              magnitude * (std::fabs(before[at]) + std::fabs(other)) * 4 * kEpsilon;
          ASSERT_TRUE(std::fabs(x[at] - expected) <= bound)
              << table->name << " position " << positions[t] << " element " << element;
        }
      }
    }
  }
}

TEST(Rope, TokensOutsideOfTheRangeStay) {
  for (const OpTable* table : AvailableTables()) {
    std::vector<float> x(3 * 16, 1.0f);
    const std::vector<int32_t> positions = {5, 6, 7};
    const std::vector<float> frequencies(8, 0.5f);
    table->rope({x.data(), 16, positions.data(), frequencies.data(), 1.0f, 1, 16, 16, 1, 2},
                nullptr);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i] == 1.0f, i / 16 != 1) << table->name;
  }
}

double Exact(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:  // 1 + tanh(u) = 2 / (1 + exp(-2u)), without its cancellation
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return 0;
}

// The relative error of exp(y) is that of y times |y|, and the tails of the two GELUs, where
// y = 2u, are as small as exp(-|y|) makes them; the error function is exact to some of its last
// places absolutely, so that of 1 + erf is not relative.
double BoundOf(Activation activation, double x, double expected) {
  const double y =
      2 * std::sqrt(2 / std::numbers::pi) * (std::fabs(x) + 0.044715 * std::fabs(x * x * x));
  switch (activation) {
    case Activation::kSilu:
      // Below -88 the exponential leaves the range of float32, and the result may be 0.
      return 6 * kEpsilon * std::fabs(expected) + (x < -87 ? 2e-36 : 1e-44);
    case Activation::kGelu:
      return 4 * kEpsilon * std::fabs(x) + 1e-44;
    case Activation::kGeluTanh:
      return (6 + (x < 0 ? 4 * y : 0)) * kEpsilon * std::fabs(expected) + 1e-35;
    case Activation::kRelu:
      return 0;
  }
  return 0;
}

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                       Activation::kRelu};

TEST(Activate, AgreesWithFloat64OverTheWholeRange) {
  std::vector<float> gate;
  for (float x = -110; x < 110; x += 0.00793f) gate.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-38f, -1e-45f, 2e38f, -2e38f, kInfinity}) gate.push_back(x);
  const std::vector<float> up(gate.size(), 1.5f);
  const auto width = static_cast<int64_t>(gate.size());
  for (const OpTable* table : AvailableTables()) {
    for (const Activation activation : kActivations) {
      for (const float* factor : {up.data(), static_cast<const float*>(nullptr)}) {
        std::vector<float> out(gate.size());
        table->activate({activation, gate.data(), factor, width, width, out.data(), width, 0, 1},
                        nullptr);
        for (size_t i = 0; i < gate.size(); ++i) {
          if (gate[i] == kInfinity) {
            EXPECT_EQ(out[i], kInfinity);
            continue;
          }
          const double x = gate[i];
          const double expected = Exact(activation, x) * (factor == nullptr ? 1 : 1.5);
          ASSERT_TRUE(std::fabs(out[i] - expected) <=
                      1.5 * BoundOf(activation, x, expected) + kEpsilon * std::fabs(expected))
              << table->name << " activation " << static_cast<int>(activation) << " at " << x
              << ": " << out[i] << ", not " << expected;
        }
      }
    }
  }
}

TEST(Activate, InPlaceWithStridesAndTailsAndNaN) {
  std::mt19937 random(3);
  for (int64_t width : {1, 2, 7, 8, 9, 15, 17, 100, 1537}) {
    const int64_t stride = width + 5;
    std::vector<float> gate = test::RandomFloats(static_cast<size_t>(4 * stride), random);
    const std::vector<float> up = test::RandomFloats(gate.size(), random);
    gate[static_cast<size_t>(2 * stride + width - 1)] = kNaN;
    for (const OpTable* table : AvailableTables()) {
      for (const Activation activation : kActivations) {
        std::vector<float> out = gate;
        table->activate(
            {activation, out.data(), up.data(), stride, width, out.data(), stride, 1, 3}, nullptr);
        for (size_t i = 0; i < gate.size(); ++i) {
          const auto t = static_cast<int64_t>(i) / stride;
          const auto column = static_cast<int64_t>(i) % stride;
          if (t == 0 || t == 3 || column >= width) {
            ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(gate[i]));
          } else if (std::isnan(gate[i])) {
            ASSERT_TRUE(std::isnan(out[i])) << table->name;
          } else {
            const double value = Exact(activation, gate[i]);
            ASSERT_TRUE(std::fabs(out[i] - value * up[i]) <=
                        (BoundOf(activation, gate[i], value) + kEpsilon * std::fabs(value)) *
                                std::fabs(up[i]) +
                            1e-44)
                << table->name << " width " << width;
          }
        }
      }
    }
  }
}

TEST(RmsNorm, AddsToTheHiddenStateAndWorksInPlace) {
  std::mt19937 random(5);
  for (int64_t width : {1, 7, 8, 9, 64, 577}) {
    const std::vector<float> x = test::RandomFloats(static_cast<size_t>(2 * width), random);
    const std::vector<float> weight = test::RandomFloats(static_cast<size_t>(width), random);
    for (const OpTable* table : AvailableTables()) {
      std::vector<float> plain(x.size());
      table->rms_norm(
          {x.data(), width, weight.data(), width, 1e-6f, false, plain.data(), width, 0, 2},
          nullptr);
      std::vector<float> in_place = x;
      table->rms_norm({in_place.data(), width, weight.data(), width, 1e-6f, false, in_place.data(),
                       width, 0, 2},
                      nullptr);
      EXPECT_EQ(in_place, plain) << table->name << " " << width;
      std::vector<float> added(x.size(), 3.0f);
      table->rms_norm(
          {x.data(), width, weight.data(), width, 1e-6f, true, added.data(), width, 0, 2}, nullptr);
      for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(added[i], 3.0f + plain[i]) << table->name;
    }
  }
}

TEST(LayerNorm, AgreesWithFloat64AtAwkwardWidthsAndFarFromZero) {
  std::mt19937 random(6);
  for (int64_t width : {1, 2, 7, 8, 9, 31, 33, 64, 127, 576, 1537}) {
    for (const float offset : {0.0f, 1000.0f}) {
      const int64_t stride = width + 3;
      std::vector<float> x = test::RandomFloats(static_cast<size_t>(4 * stride), random);
      for (float& value : x) value += offset;
      const std::vector<float> weight = test::RandomFloats(static_cast<size_t>(width), random);
      const std::vector<float> bias = test::RandomFloats(static_cast<size_t>(width), random);
      for (const OpTable* table : AvailableTables()) {
        for (const float* b : {bias.data(), static_cast<const float*>(nullptr)}) {
          std::vector<float> y(x.size(), -77.0f);
          table->layer_norm(
              {x.data(), stride, weight.data(), b, width, 1e-5f, y.data(), stride, 1, 3}, nullptr);
          for (int64_t t = 0; t < 4; ++t) {
            const float* row = x.data() + t * stride;
            double mean = 0, variance = 0;
            for (int64_t i = 0; i < width; ++i) mean += row[i] / static_cast<double>(width);
            for (int64_t i = 0; i < width; ++i) {
              variance += (row[i] - mean) * (row[i] - mean) / static_cast<double>(width);
            }
            const double deviation = std::sqrt(variance + double{1e-5f});
            for (int64_t i = 0; i < stride; ++i) {
              const float got = y[static_cast<size_t>(t * stride + i)];
              if (t == 0 || t == 3 || i >= width) {
                ASSERT_EQ(got, -77.0f) << table->name;
                continue;
              }
              const auto at = static_cast<size_t>(i);
              const double product = (row[i] - mean) / deviation * weight[at];
              const double shift = b == nullptr ? 0 : b[i];
              // Sums in float64: what is left are the roundings of quotient, product and sum, and
              // that of a mean which is `offset` away, over the deviation.
              const double bound = 2 * kEpsilon * (std::fabs(product) + std::fabs(shift)) +
                                   1e-13 * offset / deviation;
              ASSERT_TRUE(std::fabs(got - (product + shift)) <= bound)
                  << table->name << " " << width << " " << got << " not " << product + shift;
            }
          }
        }
      }
    }
  }
}

TEST(LayerNorm, AConstantRowBecomesTheBiasAndANaNSpreads) {
  for (const OpTable* table : AvailableTables()) {
    std::vector<float> x(2 * 19, 5.0f);
    x[19 + 17] = kNaN;
    const std::vector<float> weight(19, 2.0f);
    const std::vector<float> bias(19, 0.25f);
    table->layer_norm({x.data(), 19, weight.data(), bias.data(), 19, 1e-6f, x.data(), 19, 0, 2},
                      nullptr);
    for (size_t i = 0; i < 19; ++i) {
      EXPECT_EQ(x[i], 0.25f);
      EXPECT_TRUE(std::isnan(x[19 + i])) << table->name;
    }
  }
}

TEST(ScaleAdd, ScalesAndAddsTheRangeOnly) {
  for (const OpTable* table : AvailableTables()) {
    for (int64_t width : {1, 7, 8, 9, 33}) {
      const int64_t stride = width + 2;
      const auto size = static_cast<size_t>(3 * stride);
      std::vector<float> y(size), x(static_cast<size_t>(3 * width));
      for (size_t i = 0; i < size; ++i) y[i] = static_cast<float>(i);
      for (size_t i = 0; i < x.size(); ++i) x[i] = 0.5f * static_cast<float>(i);
      table->scale_add({y.data(), stride, 4.0f, x.data(), width, width, 1, 2}, nullptr);
      table->scale_add({y.data(), stride, 0.5f, nullptr, 0, width, 1, 2}, nullptr);
      for (int64_t i = 0; i < 3 * stride; ++i) {
        const int64_t column = i % stride;
        const bool in_range = i / stride == 1 && column < width;
        const float before = static_cast<float>(i);
        const float expected =
            in_range ? 0.5f * (4 * before + 0.5f * static_cast<float>(width + column)) : before;
        ASSERT_EQ(y[static_cast<size_t>(i)], expected) << table->name;
      }
    }
  }
}

TEST(Softcap, AgreesWithFloat64AndKeepsToItsRange) {
  std::vector<float> before;
  for (float x = -120; x < 120; x += 0.0371f) before.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-6f, 1e30f, -1e30f, kInfinity, -kInfinity, kNaN}) {
    before.push_back(x);
  }
  const auto count = static_cast<int64_t>(before.size());
  for (const OpTable* table : AvailableTables()) {
    for (const int64_t begin : {0, 3}) {
      for (const int64_t end : {count, count - 5}) {
        std::vector<float> x = before;
        table->softcap({x.data(), 30.0f, begin, end}, nullptr);
        for (int64_t i = 0; i < count; ++i) {
          const auto at = static_cast<size_t>(i);
          if (i < begin || i >= end) {
            ASSERT_EQ(std::bit_cast<uint32_t>(x[at]), std::bit_cast<uint32_t>(before[at]));
          } else if (std::isnan(before[at])) {
            ASSERT_TRUE(std::isnan(x[at])) << table->name;
          } else {
            // A few epsilons of the cap: the scores of an attention matter absolutely.
            ASSERT_NEAR(x[at], 30 * std::tanh(before[at] / 30.0), 30 * 4 * kEpsilon)
                << table->name << " at " << before[at];
          }
        }
      }
    }
  }
}

TEST(StoreKv, WritesEachTokenIntoItsSlotAndNothingElse) {
  std::mt19937 random(4);
  for (KvType type : {KvType::kF32, KvType::kF16}) {
    for (int64_t dim : {1, 7, 8, 64, 130}) {
      const int64_t heads = 3;
      const int64_t element = KvTypeBytes(type);
      const int64_t block_bytes = heads * 2 * 16 * dim * element + 32;
      const int64_t stride = heads * dim + 4;
      std::vector<float> key = test::RandomFloats(static_cast<size_t>(5 * stride), random, 100);
      std::vector<float> value = test::RandomFloats(key.size(), random);
      key[0] = kNaN;
      value[0] = 1e6f;  // infinity in f16
      const int64_t slots[] = {999, 3 * 16 + 15, 0, 2 * 16 + 1, 999};
      for (const OpTable* table : AvailableTables()) {
        std::vector<std::byte> cache(static_cast<size_t>(4 * block_bytes), std::byte{0xa5});
        std::vector<std::byte> expected = cache;
        table->store_kv({key.data(),
                         value.data(),
                         stride,
                         {cache.data(), block_bytes, type, heads, dim},
                         slots,
                         1,
                         4},
                        nullptr);
        for (int64_t t = 1; t < 4; ++t) {
          for (int64_t head = 0; head < heads; ++head) {
            for (int64_t part = 0; part < 2; ++part) {
              for (int64_t i = 0; i < dim; ++i) {
                const float from =
                    (part == 0 ? key : value)[static_cast<size_t>(t * stride + head * dim + i)];
                const int64_t in_block = ((head * 2 + part) * 16 + slots[t] % 16) * dim + i;
                std::byte* to = expected.data() + slots[t] / 16 * block_bytes + in_block * element;
                const uint16_t half = FloatToF16(from);
                std::memcpy(to, type == KvType::kF32 ? static_cast<const void*>(&from) : &half,
                            static_cast<size_t>(element));
              }
            }
          }
        }
        EXPECT_TRUE(cache == expected) << table->name << " " << dim;
      }
    }
  }
}

}  // namespace
}  // namespace sluice
