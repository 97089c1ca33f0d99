// Normalization, rotation, activation and the writing of the cache: every table against float64.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
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
        table->rms_norm({x.data(), stride, weight.data(), width, 1e-5f, y.data(), stride, 1, 3},
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
    table->rms_norm({x.data(), 19, weight.data(), 19, 1e-6f, y.data(), 19, 0, 2}, nullptr);
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

TEST(SiluMul, AgreesWithFloat64OverTheWholeRange) {
  std::vector<float> gate;
  for (float x = -110; x < 110; x += 0.00793f) gate.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-38f, -1e-45f, 2e38f, -2e38f, kInfinity}) gate.push_back(x);
  const std::vector<float> up(gate.size(), 1.5f);
  const auto width = static_cast<int64_t>(gate.size());
  for (const OpTable* table : AvailableTables()) {
    std::vector<float> out(gate.size());
    table->silu_mul({gate.data(), up.data(), width, width, out.data(), width, 0, 1}, nullptr);
    for (size_t i = 0; i < gate.size(); ++i) {
      if (gate[i] == kInfinity) {
        EXPECT_EQ(out[i], kInfinity);
        continue;
      }
      const double x = gate[i];
      const double expected = x / (1 + std::exp(-x)) * 1.5;
      // Two units in the last place of exp, one each for sum, quotient and product. Below -88 the
      // exponential leaves the range of float32, and the result may be 0.
      const double tiny = x < -87 ? 1e-36 : 1e-44;
      ASSERT_TRUE(std::fabs(out[i] - expected) <= 5 * kEpsilon * std::fabs(expected) + tiny)
          << table->name << " at " << x << ": " << out[i] << ", not " << expected;
    }
  }
}

TEST(SiluMul, InPlaceWithStridesAndTailsAndNaN) {
  std::mt19937 random(3);
  for (int64_t width : {1, 2, 7, 8, 9, 15, 17, 100, 1537}) {
    const int64_t stride = width + 5;
    std::vector<float> gate = test::RandomFloats(static_cast<size_t>(4 * stride), random);
    const std::vector<float> up = test::RandomFloats(gate.size(), random);
    gate[static_cast<size_t>(2 * stride + width - 1)] = kNaN;
    for (const OpTable* table : AvailableTables()) {
      std::vector<float> out = gate;
      table->silu_mul({out.data(), up.data(), stride, width, out.data(), stride, 1, 3}, nullptr);
      for (size_t i = 0; i < gate.size(); ++i) {
        const auto t = static_cast<int64_t>(i) / stride;
        const auto column = static_cast<int64_t>(i) % stride;
        if (t == 0 || t == 3 || column >= width) {
          ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(gate[i]));
        } else if (std::isnan(gate[i])) {
          ASSERT_TRUE(std::isnan(out[i])) << table->name;
        } else {
          const double x = gate[i];
          const double expected = x / (1 + std::exp(-x)) * up[i];
          ASSERT_TRUE(std::fabs(out[i] - expected) <= 5 * kEpsilon * std::fabs(expected))
              << table->name << " width " << width;
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
