// The small CUDA operations, emulated, against float64 or against `ref`.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/launchers.h"
#include "kernels/select.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;
using test::ActivationBuffer;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Quantizes and compares every number with the contract's.
void ExpectContract(const std::vector<float>& x, int64_t tokens, int64_t cols) {
  const int64_t stride = static_cast<int64_t>(x.size()) / tokens;
  for (int64_t group : {16, 32, 64, 128}) {
    ActivationBuffer actual(tokens, cols, group);
    ActivationBuffer expected(tokens, cols, group);
    kCudaTable.quantize({x.data(), stride, cols, actual.view(), 0, tokens}, nullptr);
    for (int64_t token = 0; token < tokens; ++token) {
      test::ContractQuantize(x.data() + token * stride, cols, token, &expected);
    }
    ASSERT_EQ(actual.values, expected.values) << cols << " by " << group;
    ASSERT_EQ(actual.sums, expected.sums) << cols << " by " << group;
    for (size_t i = 0; i < expected.scales.size(); ++i) {
      ASSERT_TRUE(test::SameBits(actual.scales[i], expected.scales[i])) << cols << " by " << group;
    }
  }
}

TEST(CudaQuantize, GivesTheContractsBits) {
  std::mt19937 random(1);
  for (int64_t cols : {1, 15, 16, 17, 31, 32, 33, 64, 65, 96, 127, 128, 129, 257, 1536}) {
    ASSERT_NO_FATAL_FAILURE(
        ExpectContract(test::RandomFloats(static_cast<size_t>(3 * (cols + 2)), random), 3, cols));
  }
}

TEST(CudaQuantize, TiesExtremesAndValuesThatAreNotFinite) {
  std::vector<float> ties(128);
  for (int i = 0; i < 128; ++i) ties[static_cast<size_t>(i)] = static_cast<float>(i - 64) + 0.5f;
  ties[0] = 127;
  ASSERT_NO_FATAL_FAILURE(ExpectContract(ties, 1, 128));
  for (float size : {0.0f, -0.0f, 1e-45f, 9.9e-31f, 1e-30f, 1.1e-30f, 1e-20f, 1e30f, 3.4e38f,
                     kInfinity, -kInfinity, kNaN}) {
    std::vector<float> x(160);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 3 == 0 ? -size : size / 3;
    ASSERT_NO_FATAL_FAILURE(ExpectContract(x, 1, 160));
    std::vector<float> single(160, 1.0f);
    single[77] = size;
    ASSERT_NO_FATAL_FAILURE(ExpectContract(single, 1, 160));
  }
}

TEST(CudaQuantize, TokensOutsideOfTheRangeStay) {
  const std::vector<float> x(4 * 40, 1.0f);
  ActivationBuffer buffer(4, 40, 32);
  kCudaTable.quantize({x.data(), 40, 40, buffer.view(), 1, 3}, nullptr);
  for (size_t t = 0; t < 4; ++t) {
    EXPECT_EQ(buffer.sums[2 * t], t == 1 || t == 2 ? 32 * 127 : 77);
    EXPECT_EQ(buffer.values[64 * t + 63], t == 1 || t == 2 ? 0 : 77);
  }
}

TEST(CudaRmsNorm, WithinRoundingOfFloat64AndOnlyTokensOfTheRange) {
  std::mt19937 random(2);
  for (int64_t width : {1, 2, 31, 255, 256, 257, 576, 2000}) {
    const int64_t stride = width + 3;
    std::vector<float> x = test::RandomFloats(static_cast<size_t>(4 * stride), random, 5);
    x[static_cast<size_t>(2 * stride)] = 1e15f;
    const std::vector<float> weight = test::RandomFloats(static_cast<size_t>(width), random);
    for (const bool add : {false, true}) {
      SetOrder(add ? Order::kShuffled : Order::kAscending);
      std::vector<float> y(x.size(), -7.0f);
      kCudaTable.rms_norm({.x = x.data(),
                           .x_stride = stride,
                           .weight = weight.data(),
                           .width = width,
                           .eps = 1e-5f,
                           .add_to_y = add,
                           .y = y.data(),
                           .y_stride = stride,
                           .token_begin = 1,
                           .token_end = 3},
                          nullptr);
      for (int64_t t = 0; t < 4; ++t) {
        double squares = 0;
        for (int64_t i = 0; i < width; ++i) {
          squares += std::pow(double{x[static_cast<size_t>(t * stride + i)]}, 2);
        }
        const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + double{1e-5f});
        for (int64_t i = 0; i < stride; ++i) {
          const auto at = static_cast<size_t>(t * stride + i);
          if (t == 0 || t == 3 || i >= width) {
            ASSERT_EQ(y[at], -7.0f);
            continue;
          }
          const double product = x[at] * factor * weight[static_cast<size_t>(i)];
          const double expected = add ? product - 7 : product;
          // A thread's sum has width / 256 terms, then 13 more; half of that is left by the root.
          const double bound = (static_cast<double>(width) / 512 + 12) * kEpsilon;
          ASSERT_TRUE(std::fabs(y[at] - expected) <= bound * (std::fabs(product) + (add ? 7 : 0)))
              << width;
        }
      }
    }
    SetOrder(Order::kAscending);
  }
}

TEST(CudaLayerNorm, WithinRoundingOfFloat64InPlaceWithAndWithoutBias) {
  std::mt19937 random(12);
  for (int64_t width : {1, 2, 31, 256, 257, 2000}) {
    const int64_t stride = width + 1;
    std::vector<float> x = test::RandomFloats(static_cast<size_t>(3 * stride), random);
    for (float& value : x) value += 50;  // a mean far from 0
    const std::vector<float> weight = test::RandomFloats(static_cast<size_t>(width), random);
    const std::vector<float> bias = test::RandomFloats(static_cast<size_t>(width), random);
    for (const bool has_bias : {false, true}) {
      std::vector<float> y = x;
      kCudaTable.layer_norm({y.data(), stride, weight.data(), has_bias ? bias.data() : nullptr,
                             width, 1e-5f, y.data(), stride, 1, 2},
                            nullptr);
      double mean = 0;
      for (int64_t i = 0; i < width; ++i) mean += x[static_cast<size_t>(stride + i)];
      mean /= static_cast<double>(width);
      double squares = 0;
      for (int64_t i = 0; i < width; ++i) {
        squares += std::pow(x[static_cast<size_t>(stride + i)] - mean, 2);
      }
      const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + double{1e-5f});
      // The mean is off by its roundings, and so is what differs from it; the factor's error is
      // relative, as above.
      const double terms = static_cast<double>(width) / 256 + 16;
      const double mean_error = 55 * terms * kEpsilon;
      for (int64_t i = 0; i < 3 * stride; ++i) {
        const auto at = static_cast<size_t>(i);
        if (i / stride != 1 || i % stride >= width) {
          ASSERT_EQ(y[at], x[at]);
          continue;
        }
        const auto column = static_cast<size_t>(i % stride);
        const double normal = (x[at] - mean) * factor;
        const double expected = normal * weight[column] + (has_bias ? bias[column] : 0);
        const double bound = std::fabs(weight[column]) *
                                 (mean_error * factor +
                                  std::fabs(normal) * (terms * kEpsilon + mean_error * factor)) +
                             2 * kEpsilon * std::fabs(expected);
        ASSERT_TRUE(std::fabs(y[at] - expected) <= bound)
            << width << ": " << y[at] << ", not " << expected;
      }
    }
  }
}

TEST(CudaScaleAdd, WithAndWithoutASecondTerm) {
  std::mt19937 random(13);
  for (int64_t width : {1, 255, 256, 700}) {
    const std::vector<float> x = test::RandomFloats(static_cast<size_t>(3 * width), random);
    const std::vector<float> before = test::RandomFloats(x.size(), random);
    for (const bool has_x : {false, true}) {
      std::vector<float> y = before;
      std::vector<float> expected = before;
      const ScaleAddArgs args = {y.data(), width, 1.5f, has_x ? x.data() : nullptr,
                                 width,    width, 1,    3};
      kCudaTable.scale_add(args, nullptr);
      ScaleAddArgs ref = args;
      ref.y = expected.data();
      kRefTable.scale_add(ref, nullptr);
      EXPECT_EQ(y, expected);
    }
  }
}

TEST(CudaSoftcap, CapsTheRangeAlone) {
  std::vector<float> x;
  for (float value = -100; value < 100; value += 0.37f) x.push_back(value);
  const std::vector<float> before = x;
  const auto end = static_cast<int64_t>(x.size()) - 2;
  kCudaTable.softcap({x.data(), 30.0f, 3, end}, nullptr);
  for (size_t i = 0; i < x.size(); ++i) {
    const bool inside = i >= 3 && static_cast<int64_t>(i) < end;
    const double expected = inside ? 30 * std::tanh(before[i] / 30.0) : before[i];
    EXPECT_TRUE(std::fabs(x[i] - expected) <= 4 * kEpsilon * std::fabs(expected)) << before[i];
  }
}

TEST(CudaRope, TurnsPairsAsRefDoesAndLeavesTheRest) {
  std::mt19937 random(3);
  struct Shape {
    int64_t heads, head_dim, dim;
  };
  for (const Shape& s : {Shape{1, 2, 2}, Shape{3, 8, 8}, Shape{9, 64, 64}, Shape{2, 80, 20},
                         Shape{5, 18, 10}, Shape{1, 1200, 1100}}) {
    const std::vector<int32_t> positions = {3, 0, 1, 4095, 131071, 1000000, 9};
    std::vector<float> frequencies;
    for (int64_t i = 0; i < s.dim / 2; ++i) {
      frequencies.push_back(static_cast<float>(
          std::pow(10000, -2.0 * static_cast<double>(i) / static_cast<double>(s.dim))));
    }
    const int64_t stride = s.heads * s.head_dim + 1;
    const std::vector<float> before =
        test::RandomFloats(positions.size() * static_cast<size_t>(stride), random);
    const auto rotate = [&](const OpTable& table) {
      std::vector<float> x = before;
      table.rope({x.data(), stride, positions.data(), frequencies.data(), 1.25f, s.heads,
                  s.head_dim, s.dim, 1, 6},
                 nullptr);
      return x;
    };
    const std::vector<float> expected = rotate(kRefTable);
    const std::vector<float> actual = rotate(kCudaTable);
    for (size_t i = 0; i < before.size(); ++i) {
      // Here sine and cosine are the host's, so the results are the same; on a GPU they are within
      // two units in the last place.
      ASSERT_TRUE(std::fabs(actual[i] - expected[i]) <= 4 * kEpsilon * std::fabs(expected[i]));
      const size_t token = i / static_cast<size_t>(stride);
      const auto column = static_cast<int64_t>(i) % stride;
      if (token == 0 || token == 6 || column >= s.heads * s.head_dim ||
          column % s.head_dim >= s.dim) {
        ASSERT_EQ(actual[i], before[i]);
      }
    }
  }
}

double ExactActivation(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return 0;
}

TEST(CudaActivate, AgreesWithFloat64InPlaceWithStrides) {
  std::vector<float> gate;
  for (float x = -100; x < 100; x += 0.73f) gate.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-38f, kInfinity, kNaN, 1.0f}) gate.push_back(x);
  const auto width = static_cast<int64_t>(gate.size());
  const std::vector<float> up(gate.size() * 3, 1.5f);
  for (Activation activation :
       {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh, Activation::kRelu}) {
    for (const bool has_up : {false, true}) {
      std::vector<float> out;
      for (int t = 0; t < 3; ++t) out.insert(out.end(), gate.begin(), gate.end());
      kCudaTable.activate({activation, out.data(), has_up ? up.data() : nullptr, width, width - 1,
                           out.data(), width, 1, 2},
                          nullptr);
      for (int64_t i = 0; i < 3 * width; ++i) {
        const float x = gate[static_cast<size_t>(i % width)];
        const float actual = out[static_cast<size_t>(i)];
        if (i / width != 1 || i % width == width - 1) {
          EXPECT_TRUE(test::SameBits(actual, x));
        } else if (!std::isfinite(x)) {
          EXPECT_TRUE(test::SameBits(actual, x));
        } else {
          const double expected = ExactActivation(activation, x) * (has_up ? 1.5 : 1);
          // Errors of the exponential's argument grow with it (a cubic polynomial for GELU); the
          // error function is good to an epsilon of 1, so GELU is to one of x. What is below
          // float32's exponentials may be 0.
          const double argument = std::min(100.0, std::fabs(x * x * x) * 0.1 + std::fabs(x));
          const double relative = (5 + 4 * argument) * kEpsilon;
          const double absolute = activation == Activation::kGelu ? 2 * kEpsilon * std::fabs(x) : 0;
          EXPECT_TRUE(std::fabs(actual - expected) <=
                      relative * std::fabs(expected) + absolute + 1e-36)
              << static_cast<int>(activation) << " at " << x;
        }
      }
    }
  }
}

TEST(CudaStoreKv, WritesWhatRefWritesAndNothingElse) {
  std::mt19937 random(4);
  for (KvType type : {KvType::kF32, KvType::kF16}) {
    for (int64_t dim : {1, 7, 64, 130}) {
      const int64_t heads = 3;
      const int64_t block_bytes = heads * 2 * 16 * dim * KvTypeBytes(type) + 32;
      const int64_t stride = heads * dim + 4;
      std::vector<float> key = test::RandomFloats(static_cast<size_t>(5 * stride), random, 100);
      const std::vector<float> value = test::RandomFloats(key.size(), random);
      key[static_cast<size_t>(stride)] = 1e6f;  // infinity in f16
      const int64_t slots[] = {999, 3 * 16 + 15, 0, 2 * 16 + 1, 999};
      const auto store = [&](const OpTable& table) {
        std::vector<std::byte> cache(static_cast<size_t>(4 * block_bytes), std::byte{0xa5});
        const KvLayer layer = {cache.data(), block_bytes, type, heads, dim};
        table.store_kv({key.data(), value.data(), stride, layer, slots, 1, 4}, nullptr);
        return cache;
      };
      EXPECT_TRUE(store(kCudaTable) == store(kRefTable)) << dim;
    }
  }
}

}  // namespace
}  // namespace sluice
