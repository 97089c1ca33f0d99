// CUDA operations that are several in one launch, emulated: the bits of those one by one.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/launchers.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using cuda_emulation::Order;
using cuda_emulation::SetOrder;
using test::ActivationBuffer;

constexpr int64_t kTokens = 4;  // of which the calls take two
constexpr int64_t kBegin = 1;
constexpr int64_t kEnd = 3;

struct Row {
  int64_t width;
  int64_t padding;  // to the next row: odd ones cannot be loaded four at a time
};

// Runs `operation(y, quantized)` with and without int8 results: y is the same, and the int8 is that
// of the contract; other tokens stay.
template <typename Operation>
void ExpectQuantizedToo(const std::vector<float>& before, const Row& row,
                        const Operation& operation) {
  const int64_t stride = row.width + row.padding;
  std::vector<float> expected_y = before;
  operation(expected_y.data(), nullptr);
  for (int64_t group : {16, 32, 64, 128}) {
    for (Order order : {Order::kAscending, Order::kWarpByWarpDescending}) {
      SetOrder(order);
      std::vector<float> y = before;
      ActivationBuffer actual(kTokens, row.width, group);
      ActivationBuffer expected(kTokens, row.width, group);
      const QuantizedActivations view = actual.view();
      operation(y.data(), &view);
      SetOrder(Order::kAscending);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_TRUE(test::SameBits(y[i], expected_y[i])) << row.width << " at " << i;
      }
      for (int64_t t = kBegin; t < kEnd; ++t) {
        test::ContractQuantize(y.data() + t * stride, row.width, t, &expected);
      }
      ASSERT_EQ(actual.values, expected.values) << row.width << " by " << group;
      ASSERT_EQ(actual.sums, expected.sums) << row.width << " by " << group;
      for (size_t i = 0; i < expected.scales.size(); ++i) {
        ASSERT_TRUE(test::SameBits(actual.scales[i], expected.scales[i])) << row.width;
      }
    }
  }
}

// More than 4,096 channels are more than a block has threads for.
const std::vector<Row> kRows = {{1, 0},   {3, 2},   {31, 1},  {32, 0},   {33, 0},   {128, 4},
                                {129, 3}, {576, 0}, {578, 1}, {1536, 8}, {4096, 0}, {5001, 3}};

std::vector<float> Values(const Row& row, uint32_t seed) {
  std::mt19937 random(seed);
  return test::RandomFloats(static_cast<size_t>(kTokens * (row.width + row.padding)), random, 5);
}

TEST(CudaFused, RmsNormsResultsInInt8) {
  for (const Row& row : kRows) {
    const int64_t stride = row.width + row.padding;
    const std::vector<float> x = Values(row, 1);
    const std::vector<float> weight = Values(row, 2);
    for (const bool add : {false, true}) {
      const auto normalize = [&](float* y, const QuantizedActivations* quantized) {
        kCudaTable.rms_norm({.x = x.data(),
                             .x_stride = stride,
                             .weight = weight.data(),
                             .width = row.width,
                             .eps = 1e-5f,
                             .add_to_y = add,
                             .y = y,
                             .y_stride = stride,
                             .token_begin = kBegin,
                             .token_end = kEnd,
                             .quantized = quantized},
                            nullptr);
      };
      ASSERT_NO_FATAL_FAILURE(ExpectQuantizedToo(Values(row, 3), row, normalize));
    }
  }
}

TEST(CudaFused, LayerNormsResultsInInt8InPlace) {
  for (const Row& row : kRows) {
    const int64_t stride = row.width + row.padding;
    const std::vector<float> weight = Values(row, 2);
    const std::vector<float> bias = Values(row, 4);
    for (const float* its_bias : {bias.data(), static_cast<const float*>(nullptr)}) {
      const auto normalize = [&](float* y, const QuantizedActivations* quantized) {
        kCudaTable.layer_norm({.x = y,
                               .x_stride = stride,
                               .weight = weight.data(),
                               .bias = its_bias,
                               .width = row.width,
                               .eps = 1e-5f,
                               .y = y,
                               .y_stride = stride,
                               .token_begin = kBegin,
                               .token_end = kEnd,
                               .quantized = quantized},
                              nullptr);
      };
      ASSERT_NO_FATAL_FAILURE(ExpectQuantizedToo(Values(row, 5), row, normalize));
    }
  }
}

TEST(CudaFused, ActivationsInInt8) {
  for (const Row& row : kRows) {
    const int64_t stride = row.width + row.padding;
    std::vector<float> up_values = Values(row, 6);
    // Of the second token that is computed: a group that is not finite.
    up_values[static_cast<size_t>(2 * stride + row.width / 2)] =
        std::numeric_limits<float>::infinity();
    const float* up = up_values.data();
    for (const float* its_up : {up, static_cast<const float*>(nullptr)}) {
      const auto activate = [&](float* y, const QuantizedActivations* quantized) {
        kCudaTable.activate({.activation = Activation::kSilu,
                             .gate = y,
                             .up = its_up,
                             .stride = stride,
                             .width = row.width,
                             .out = y,
                             .out_stride = stride,
                             .token_begin = kBegin,
                             .token_end = kEnd,
                             .quantized = quantized},
                            nullptr);
      };
      ASSERT_NO_FATAL_FAILURE(ExpectQuantizedToo(Values(row, 7), row, activate));
    }
  }
}

struct Heads {
  int64_t queries, keys, head_dim, dim;
};

TEST(CudaFused, QueriesAndKeysNormalizedAndRotatedAndStored) {
  std::mt19937 random(8);
  for (const Heads& h :
       {Heads{1, 1, 2, 2}, Heads{9, 3, 64, 64}, Heads{4, 2, 80, 20}, Heads{5, 5, 18, 10},
        Heads{3, 1, 7, 4}, Heads{2, 1, 256, 256}, Heads{2, 1, 192, 48}}) {
    const std::vector<int32_t> positions = {3, 0, 131071, 9};
    const std::vector<int64_t> slots = {999, 3 * 16 + 15, 16, 999};
    std::vector<float> frequencies;
    for (int64_t i = 0; i < h.dim / 2; ++i) {
      frequencies.push_back(static_cast<float>(
          std::pow(10000, -2.0 * static_cast<double>(i) / static_cast<double>(h.dim))));
    }
    const int64_t query_stride = h.queries * h.head_dim + 1;
    const int64_t stride = h.keys * h.head_dim + 2;
    const auto values = [&](int64_t width) {
      return test::RandomFloats(static_cast<size_t>(kTokens * width), random);
    };
    const std::vector<float> query = values(query_stride);
    const std::vector<float> key = values(stride);
    const std::vector<float> value = values(stride);
    const auto rope = [&](float* x, int64_t x_stride, int64_t heads) {
      return RopeArgs{x,      x_stride, positions.data(), frequencies.data(),
                      1.25f,  heads,    h.head_dim,       h.dim,
                      kBegin, kEnd};
    };
    // Heads follow each other without a gap: each is a row.
    const auto norm = [&](float* x, const float* weight, int64_t heads) {
      return RmsNormArgs{.x = x,
                         .x_stride = h.head_dim,
                         .weight = weight,
                         .width = h.head_dim,
                         .eps = 1e-6f,
                         .add_to_y = false,
                         .y = x,
                         .y_stride = h.head_dim,
                         .token_begin = 0,
                         .token_end = heads};
    };
    const std::vector<float> weights = values(h.head_dim);
    for (const auto& [type, normalizes] :
         {std::pair(KvType::kF32, false), std::pair(KvType::kF16, false),
          std::pair(KvType::kF32, true), std::pair(KvType::kF16, true)}) {
      const float* query_norm = normalizes ? weights.data() : nullptr;
      const float* key_norm = normalizes ? weights.data() + h.head_dim : nullptr;
      const int64_t block_bytes = h.keys * 2 * 16 * h.head_dim * KvTypeBytes(type) + 32;
      const std::vector<std::byte> empty(static_cast<size_t>(4 * block_bytes), std::byte{0xa5});
      std::vector<std::byte> cache = empty;
      KvLayer layer = {cache.data(), block_bytes, type, h.keys, h.head_dim};
      std::vector<float> expected_query = query;
      std::vector<float> rotated_key = key;
      if (normalizes) {
        for (int64_t t = kBegin; t < kEnd; ++t) {
          float* q = expected_query.data() + t * query_stride;
          float* k = rotated_key.data() + t * stride;
          kCudaTable.rms_norm(norm(q, query_norm, h.queries), nullptr);
          kCudaTable.rms_norm(norm(k, key_norm, h.keys), nullptr);
        }
      }
      kCudaTable.rope(rope(expected_query.data(), query_stride, h.queries), nullptr);
      kCudaTable.rope(rope(rotated_key.data(), stride, h.keys), nullptr);
      kCudaTable.store_kv(
          {rotated_key.data(), value.data(), stride, layer, slots.data(), kBegin, kEnd}, nullptr);
      const std::vector<std::byte> expected_cache = cache;

      cache = empty;
      std::vector<float> actual_query = query;
      std::vector<float> actual_key = key;
      kCudaTable.rotate_store(
          {rope(actual_query.data(), query_stride, h.queries),
           rope(actual_key.data(), stride, h.keys),
           {actual_key.data(), value.data(), stride, layer, slots.data(), kBegin, kEnd},
           query_norm,
           key_norm,
           1e-6f},
          nullptr);
      EXPECT_EQ(actual_query, expected_query) << h.head_dim;
      EXPECT_EQ(actual_key, key);
      EXPECT_TRUE(cache == expected_cache) << h.head_dim;
    }
  }
}

}  // namespace
}  // namespace sluice
