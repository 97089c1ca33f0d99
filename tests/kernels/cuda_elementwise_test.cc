// The small CUDA operations, emulated, against float64 or against `ref`.
#include <gtest/gtest.h>

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
    for (Order order : {Order::kAscending, Order::kShuffled}) {
      SetOrder(order);
      std::vector<float> y(x.size(), -7.0f);
      kCudaTable.rms_norm({.x = x.data(),
                           .x_stride = stride,
                           .weight = weight.data(),
                           .width = width,
                           .eps = 1e-5f,
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
          const double expected = x[at] * factor * weight[static_cast<size_t>(i)];
          // A thread's sum has width / 256 terms, then 13 more; half of that is left by the root.
          const double bound = (static_cast<double>(width) / 512 + 12) * kEpsilon;
          ASSERT_TRUE(std::fabs(y[at] - expected) <= bound * std::fabs(expected)) << width;
        }
      }
    }
    SetOrder(Order::kAscending);
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

TEST(CudaSiluMul, AgreesWithFloat64InPlaceWithStrides) {
  std::vector<float> gate;
  for (float x = -100; x < 100; x += 0.73f) gate.push_back(x);
  for (float x : {0.0f, -0.0f, 1e-38f, 2e38f, -2e38f, kInfinity, kNaN}) gate.push_back(x);
  const auto width = static_cast<int64_t>(gate.size());
  const std::vector<float> up(gate.size() * 3, 1.5f);
  std::vector<float> out;
  for (int t = 0; t < 3; ++t) out.insert(out.end(), gate.begin(), gate.end());
  kCudaTable.silu_mul({out.data(), up.data(), width, width - 1, out.data(), width, 1, 2}, nullptr);
  for (int64_t i = 0; i < 3 * width; ++i) {
    const float x = gate[static_cast<size_t>(i % width)];
    const float actual = out[static_cast<size_t>(i)];
    if (i / width != 1 || i % width == width - 1) {
      EXPECT_TRUE(test::SameBits(actual, x));
      continue;
    }
    if (x == kInfinity) {
      EXPECT_EQ(actual, kInfinity);
      continue;
    }
    const double expected = x / (1 + std::exp(-double{x})) * 1.5;
    const double tiny = x < -87 ? 1e-36 : 1e-44;
    EXPECT_TRUE(std::fabs(actual - expected) <= 5 * kEpsilon * std::fabs(expected) + tiny) << x;
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
