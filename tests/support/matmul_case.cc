#include "tests/support/matmul_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/numeric_contract.h"

namespace sluice::test {
namespace {

constexpr uint32_t kGuard = 0x7fedcba9;  // a NaN that no kernel makes
constexpr int64_t kSpoiledToken = 4;

void SetGuards(const MatmulCase& c, int64_t tokens, std::vector<float>* y) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = c.rows; row < c.y_stride; ++row) {
      (*y)[c.At(t, row)] = std::bit_cast<float>(kGuard);
    }
  }
}

void ExpectGuards(const OpTable& table, const MatmulCase& c, int64_t tokens,
                  const std::vector<float>& y) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t row = c.rows; row < c.y_stride; ++row) {
      EXPECT_EQ(std::bit_cast<uint32_t>(y[c.At(t, row)]), kGuard)
          << Describe(table, c) << " wrote " << row;
    }
  }
}

}  // namespace

MatmulCase MakeMatmulCase(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens,
                          uint32_t seed) {
  std::mt19937 random(seed);
  cols = ColsFor(type, cols);
  MatmulCase c;
  c.matrix =
      RandomMatrix(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), 16, random);
  c.rows = rows;
  c.cols = cols;
  c.tokens = tokens;
  c.x_stride = cols + static_cast<int64_t>(random() % 3);
  c.y_stride = rows + 1 + static_cast<int64_t>(random() % 5);
  c.x = RandomFloats(static_cast<size_t>(tokens * c.x_stride), random);
  c.bias = RandomFloats(static_cast<size_t>(rows), random);
  c.y_before = RandomFloats(static_cast<size_t>(tokens * c.y_stride), random);
  c.has_bias = random() % 2 == 0;
  c.add_to_y = random() % 2 == 0;
  const int64_t blocks = (cols + 127) / 128;
  c.block_end = blocks;
  if (random() % 3 == 0) {
    c.block_begin = static_cast<int64_t>(random() % static_cast<uint32_t>(blocks));
    c.block_end = c.block_begin + 1 +
                  static_cast<int64_t>(random() % static_cast<uint32_t>(blocks - c.block_begin));
  }
  return c;
}

std::string Describe(const OpTable& table, const MatmulCase& c) {
  return std::string(table.name) + " " + WeightTypeName(c.type()) + " " + std::to_string(c.rows) +
         "x" + std::to_string(c.cols) + " tokens " + std::to_string(c.tokens) +
         (c.has_bias ? " bias" : "") + (c.add_to_y ? " add" : "") + " blocks " +
         std::to_string(c.block_begin) + ".." + std::to_string(c.block_end);
}

std::vector<ExactWeight> ExactRow(const MatmulCase& c, int64_t row) {
  std::vector<ExactWeight> weights;
  weights.reserve(static_cast<size_t>(c.channel_end() - c.channel_begin()));
  for (int64_t k = c.channel_begin(); k < c.channel_end(); ++k) {
    weights.push_back(WeightAt(c.matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k)));
  }
  return weights;
}

std::vector<uint16_t> RoundedToBf16(const OpTable& table, const std::vector<float>& x,
                                    int64_t x_stride, int64_t cols, int64_t tokens) {
  const int64_t padded = (cols + 31) / 32 * 32;
  std::vector<uint16_t> values(static_cast<size_t>((tokens + 15) / 16 * 16 * padded), 0x7fc1);
  const int64_t middle = tokens / 3;
  table.round_bf16({x.data(), x_stride, cols, tokens, {values.data(), padded}, middle, tokens},
                   nullptr);
  table.round_bf16({x.data(), x_stride, cols, tokens, {values.data(), padded}, 0, middle}, nullptr);
  return values;
}

std::vector<float> Multiply(const OpTable& table, const MatmulCase& c, Products products,
                            int64_t token_begin, int64_t token_end, int64_t step) {
  const int64_t tokens = token_end - token_begin;
  const TileLayout& layout = c.matrix.layout;
  // Exactly as long as the last token needs it, so that a sanitizer sees what is read beyond.
  const std::vector<float> x(c.x.begin() + token_begin * c.x_stride,
                             c.x.begin() + (token_end - 1) * c.x_stride + c.cols);
  const bool in_bf16 = products == Products::kMatmulBf16;
  const bool quantized = !in_bf16 && table.activations(layout.type) == ActivationForm::kQuantized;
  ActivationBuffer buffer(tokens, c.cols, ActivationGroup(layout.type));
  const QuantizedActivations xq = buffer.view();
  if (quantized) table.quantize({x.data(), c.x_stride, c.cols, xq, 0, tokens}, nullptr);
  std::vector<uint16_t> values;
  if (in_bf16) values = RoundedToBf16(table, x, c.x_stride, c.cols, tokens);
  const Bf16Activations xb = {values.data(), (c.cols + 31) / 32 * 32};
  std::vector<float> y(c.y_before.begin() + token_begin * c.y_stride,
                       c.y_before.begin() + token_end * c.y_stride);
  SetGuards(c, tokens, &y);
  const auto num_tiles = static_cast<int64_t>(layout.num_tiles);
  for (int64_t tile = 0; tile < num_tiles; tile += step) {
    MatmulArgs args{};
    args.layout = &layout;
    args.tiles = c.matrix.tiles.data() + tile * static_cast<int64_t>(layout.tile_bytes);
    args.num_tiles = std::min(step, num_tiles - tile);
    args.rows = std::min(args.num_tiles * 16, c.rows - tile * 16);
    args.x = quantized || in_bf16 ? nullptr : x.data();
    args.x_stride = in_bf16 ? 0 : c.x_stride;
    args.xq = quantized ? &xq : nullptr;
    args.x_bf16 = in_bf16 ? &xb : nullptr;
    args.tokens = tokens;
    args.bias = c.has_bias ? c.bias.data() + tile * 16 : nullptr;
    args.add_to_y = c.add_to_y;
    args.y = y.data() + tile * 16;
    args.y_stride = c.y_stride;
    args.block_begin = c.block_begin;
    args.block_end = c.block_end;
    (in_bf16 ? table.matmul_bf16 : table.matmul)(args, nullptr);
  }
  ExpectGuards(table, c, tokens, y);
  return y;
}

std::vector<float> Multiply(const OpTable& table, const MatmulCase& c, Products products) {
  return Multiply(table, c, products, 0, c.tokens, std::numeric_limits<int32_t>::max());
}

void ExpectTheSameInBatches(const OpTable& table, const MatmulCase& c, Products products,
                            std::span<const int64_t> batches) {
  const std::vector<float> whole = Multiply(table, c, products);
  for (const int64_t batch : batches) {
    for (int64_t begin = 0; begin < c.tokens; begin += batch) {
      const int64_t end = std::min(c.tokens, begin + batch);
      const std::vector<float> part = Multiply(table, c, products, begin, end, 1 + batch % 3);
      for (size_t i = 0; i < part.size(); ++i) {
        ASSERT_EQ(std::bit_cast<uint32_t>(part[i]),
                  std::bit_cast<uint32_t>(whole[c.At(begin, 0) + i]))
            << Describe(table, c) << " in batches of " << batch;
      }
    }
  }
}

void ExpectNoNumbersToStayWithTheirToken(const OpTable& table, const MatmulCase& c,
                                         Products products) {
  const std::vector<float> expected = Multiply(table, c, products);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int64_t channel : {0, 1, 100, 128, 160}) {
      if (channel < c.channel_begin() || channel >= c.channel_end()) continue;
      MatmulCase spoiled = c;
      spoiled.x[static_cast<size_t>(kSpoiledToken * c.x_stride + channel)] = bad;
      const std::vector<float> y = Multiply(table, spoiled, products);
      for (int64_t t = 0; t < c.tokens; ++t) {
        for (int64_t row = 0; row < c.rows; ++row) {
          const size_t at = c.At(t, row);
          if (t == kSpoiledToken) {
            ASSERT_FALSE(std::isfinite(y[at])) << Describe(table, c) << " row " << row;
          } else {
            ASSERT_TRUE(SameBits(y[at], expected[at])) << Describe(table, c) << " row " << row;
          }
        }
      }
    }
  }
}

}  // namespace sluice::test
