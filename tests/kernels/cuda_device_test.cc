// Each operation in a device's memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "tests/support/cuda_emulation/device_case.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using test::ActivationBuffer;
using test::WeightMatrix;

class CudaDevice : public test::DeviceCase {
 protected:
  struct Matmul {
    WeightMatrix matrix;
    std::vector<float> x;
    std::vector<float> y;  // [tokens, rows]
  };

  // Quantizes on the device where the type wants it, and multiplies.
  Matmul Multiply(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens,
                  uint32_t seed) {
    std::mt19937 random(seed);
    Matmul result;
    result.matrix = test::RandomMatrix(type, static_cast<uint64_t>(rows),
                                       static_cast<uint64_t>(cols), 16, random);
    const TileLayout& layout = result.matrix.layout;
    const GpuLayout gpu = *MakeGpuLayout(layout);
    const auto num_tiles = static_cast<int64_t>(layout.num_tiles);
    std::vector<std::byte> tiles(static_cast<size_t>(num_tiles * gpu.tile_bytes));
    RepackForGpu(layout, result.matrix.tiles.data(), num_tiles, gpu, tiles.data());
    result.x = test::RandomFloats(static_cast<size_t>(tokens * cols), random);
    const float* x = Upload(result.x);
    const QuantizedActivations xq = UploadQuantized(tokens, cols, ActivationGroup(type));
    if (type.quantized()) {
      table_->quantize({x, cols, cols, xq, 0, tokens}, stream_.handle());
    }
    float* y = Upload(std::vector<float>(static_cast<size_t>(tokens * rows), -1.0f));
    table_->matmul({&layout, Upload(tiles), num_tiles, rows, x, cols, &xq, tokens, nullptr, false,
                    y, rows, 0, (cols + 127) / 128},
                   stream_.handle());
    result.y = Download(y, static_cast<size_t>(tokens * rows));
    return result;
  }
};

INSTANTIATE_TEST_SUITE_P(Where, CudaDevice,
                         testing::Values(test::Where::kEmulated, test::Where::kGpu),
                         test::NameOfPlace);

TEST_P(CudaDevice, IntegerWeightsGiveTheContractsBits) {
  uint32_t seed = 0;
  for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kNone, 32},
                                 WeightType{WeightKind::kInt4, WeightOffset::kMinimum, 64},
                                 WeightType{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                                 WeightType{WeightKind::kInt8, WeightOffset::kZeroPoint, 32},
                                 WeightType{WeightKind::kInt8, WeightOffset::kMinimum, 64},
                                 WeightType{WeightKind::kInt8, WeightOffset::kNone, 0},
                                 WeightType{WeightKind::kInt8, WeightOffset::kMinimum, 16},
                                 WeightType{WeightKind::kInt5, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ5K, WeightOffset::kMinimum, 32},
                                 WeightType{WeightKind::kQ6K, WeightOffset::kNone, 16}}) {
    for (int64_t tokens : {1, 8, 16, 17, 64, 70}) {
      const int64_t rows = 75;
      const int64_t cols = type.has_super_blocks() ? 768 : 700;
      const Matmul result = Multiply(type, rows, cols, tokens, ++seed);
      ActivationBuffer quantized(tokens, cols, ActivationGroup(type));
      for (int64_t t = 0; t < tokens; ++t) {
        test::ContractQuantize(result.x.data() + t * cols, cols, t, &quantized);
      }
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t row = 0; row < rows; ++row) {
          const float expected =
              test::ContractQuantizedDot(result.matrix, row, quantized, t, 0, 1 << 20);
          const float actual = result.y[static_cast<size_t>(t * rows + row)];
          ASSERT_TRUE(test::SameBits(actual, expected))
              << WeightTypeName(type) << " row " << row << " token " << t << " of " << tokens
              << ": " << actual << ", not " << expected;
        }
      }
    }
  }
}

TEST_P(CudaDevice, FloatWeightsAreWithinTheirBound) {
  for (WeightKind kind : {WeightKind::kF32, WeightKind::kF16, WeightKind::kBF16}) {
    for (int64_t tokens : {1, 9, 20, 40, 70}) {
      const int64_t rows = 40;
      const int64_t cols = 600;
      const Matmul result = Multiply({kind, WeightOffset::kNone, 0}, rows, cols, tokens, 7);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t row = 0; row < rows; ++row) {
          double expected = 0;
          double magnitude = 0;
          for (int64_t k = 0; k < cols; ++k) {
            const double product =
                test::WeightAt(result.matrix, static_cast<uint64_t>(row), static_cast<uint64_t>(k))
                    .value *
                result.x[static_cast<size_t>(t * cols + k)];
            expected += product;
            magnitude += std::fabs(product);
          }
          // As in cuda_matmul_test: 3 splits, and 2 epsilon for each 8 terms of each product.
          const double bound =
              magnitude * (3 * 0x1p-22 + (static_cast<double>(cols) / 8 * 3 + 8) * 0x1p-22);
          const float actual = result.y[static_cast<size_t>(t * rows + row)];
          ASSERT_TRUE(std::fabs(actual - expected) <= bound)
              << static_cast<int>(kind) << ": " << actual << ", not " << expected;
        }
      }
    }
  }
}

// One sequence of random keys and values in order in the cache, attended to by the last tokens.
TEST_P(CudaDevice, AttentionOfDecodeAndPrefillIsThatOfFloat64) {
  std::mt19937 random(3);
  constexpr int64_t kHeads = 4;
  constexpr int64_t kKvHeads = 2;
  constexpr int64_t kTokens = kGpuMostSplitRun + 1;
  const bool emulated = GetParam() == test::Where::kEmulated;
  const int64_t length = emulated ? 270 : 3000;
  for (int64_t dim :
       emulated ? std::vector<int64_t>{100} : std::vector<int64_t>{64, 100, 128, 256}) {
    const int64_t block_bytes = kKvHeads * 2 * 16 * dim * 2;
    const int64_t blocks = (length + 15) / 16;
    const KvLayer layer = {
        Upload(std::vector<std::byte>(static_cast<size_t>(blocks * block_bytes), std::byte{0xff})),
        block_bytes, KvType::kF16, kKvHeads, dim};
    const int64_t width = kKvHeads * dim;
    const std::vector<float> keys = test::RandomFloats(static_cast<size_t>(length * width), random);
    const std::vector<float> values = test::RandomFloats(keys.size(), random);
    std::vector<int64_t> slots(static_cast<size_t>(length));
    for (int64_t i = 0; i < length; ++i) {
      slots[static_cast<size_t>(i)] = (blocks - 1 - i / 16) * 16 + i % 16;  // blocks from the end
    }
    table_->store_kv({Upload(keys), Upload(values), width, layer, Upload(slots), 0, length},
                     stream_.handle());
    std::vector<uint32_t> table;
    for (int64_t i = 0; i < blocks; ++i) table.push_back(static_cast<uint32_t>(blocks - 1 - i));
    const uint32_t* device_table = Upload(table);
    const std::vector<float> query =
        test::RandomFloats(static_cast<size_t>(kTokens * kHeads * dim), random);
    std::vector<int64_t> lengths;
    for (int64_t t = 0; t < kTokens; ++t) lengths.push_back(length - kTokens + t + 1);
    AttentionArgs args = {};
    args.query = Upload(query);
    args.query_stride = kHeads * dim;
    args.num_heads = kHeads;
    args.layer = layer;
    args.block_tables = Upload(std::vector<const uint32_t*>(kTokens, device_table));
    args.lengths = Upload(lengths);
    args.scale = 1 / std::sqrt(static_cast<float>(dim));
    args.out_stride = kHeads * dim;
    args.item_end = kTokens * kKvHeads;
    args.longest_length = length;
    const int64_t scratch = GpuAttentionScratch(kTokens, kHeads, dim, length);
    args.scratch = Upload(std::vector<float>(static_cast<size_t>(scratch)));
    args.scratch_size = scratch;
    for (int64_t run : {int64_t{1}, kTokens}) {
      args.longest_run = run;
      args.out = Upload(std::vector<float>(query.size(), -1.0f));
      table_->attention(args, stream_.handle());
      const std::vector<float> out = Download(args.out, query.size());
      const auto half = [](float value) { return double{F16ToFloat(FloatToF16(value))}; };
      for (int64_t t : {int64_t{0}, int64_t{17}, kTokens - 1}) {
        for (int64_t head = 0; head < kHeads; ++head) {
          const int64_t kv_head = head / (kHeads / kKvHeads);
          const float* q = query.data() + (t * kHeads + head) * dim;
          std::vector<double> weights;
          double sum = 0;
          for (int64_t j = 0; j < lengths[static_cast<size_t>(t)]; ++j) {
            double dot = 0;
            for (int64_t i = 0; i < dim; ++i) {
              dot += q[i] * half(keys[static_cast<size_t>(j * width + kv_head * dim + i)]);
            }
            weights.push_back(std::exp(dot * args.scale));
            sum += weights.back();
          }
          for (int64_t i = 0; i < dim; ++i) {
            double expected = 0;
            for (size_t j = 0; j < weights.size(); ++j) {
              expected += weights[j] / sum *
                          half(values[j * static_cast<size_t>(width) +
                                      static_cast<size_t>(kv_head * dim + i)]);
            }
            // Values are below 6; scores, of magnitude 5 and sums of `dim` terms, are off by some
            // 1e-5, and so are weights relative to themselves.
            const float actual = out[static_cast<size_t>((t * kHeads + head) * dim + i)];
            ASSERT_TRUE(std::fabs(actual - expected) <= 2e-4)
                << "dim " << dim << " run " << run << ": " << actual << ", not " << expected;
          }
        }
      }
    }
  }
}

// A branching tree of 33 nodes behind a prefix: the device against the emulation, whose results
// attention_tree_test.cc holds against float64.
TEST_P(CudaDevice, AttentionOfADraftTreeIsThatOfTheEmulation) {
  std::mt19937 random(8);
  constexpr int64_t kHeads = 4;
  constexpr int64_t kKvHeads = 2;
  constexpr int64_t kDim = 128;
  constexpr int64_t kNodes = kGpuMostSplitRun + 1;
  constexpr int64_t kBegin = 500;
  constexpr int64_t kLength = kBegin + kNodes;
  constexpr int64_t kBlockBytes = kKvHeads * 2 * 16 * kDim * 2;
  const std::vector<float> numbers =
      test::RandomFloats(static_cast<size_t>((kLength + 15) / 16 * kBlockBytes / 2), random);
  std::vector<uint16_t> cache;
  for (float number : numbers) cache.push_back(FloatToF16(number));
  std::vector<uint32_t> blocks((kLength + 15) / 16);
  std::iota(blocks.rbegin(), blocks.rend(), 0);
  std::vector<int64_t> lengths;
  std::vector<uint64_t> ancestors;
  for (int64_t i = 0; i < kNodes; ++i) {
    lengths.push_back(kBegin + i + 1);
    const uint64_t own = uint64_t{1} << i;
    ancestors.push_back(i < 3 ? own : own | ancestors[static_cast<size_t>(i - 2 - i % 3 / 2)]);
  }
  const std::vector<int64_t> begins(kNodes, kBegin);
  const std::vector<float> query = test::RandomFloats(kNodes * kHeads * kDim, random);
  const std::vector<float> slopes = {0.5f, 0.25f, 0.125f, 0.0625f};
  AttentionArgs args = {};
  args.query_stride = args.out_stride = kHeads * kDim;
  args.num_heads = kHeads;
  args.layer = {reinterpret_cast<std::byte*>(cache.data()), kBlockBytes, KvType::kF16, kKvHeads,
                kDim};
  args.window = 510;
  args.scale = 0.1f;
  args.item_end = kNodes * kKvHeads;
  args.longest_length = kLength;
  args.scratch_size = GpuAttentionScratch(kNodes, kHeads, kDim, kLength);
  std::vector<float> scratch(static_cast<size_t>(args.scratch_size));
  for (int64_t run : {int64_t{1}, kNodes}) {
    args.longest_run = run;
    AttentionArgs host = args;
    const std::vector<const uint32_t*> host_tables(kNodes, blocks.data());
    std::vector<float> expected(query.size());
    host.query = query.data();
    host.block_tables = host_tables.data();
    host.lengths = lengths.data();
    host.tree_begin = begins.data();
    host.ancestors = ancestors.data();
    host.slopes = slopes.data();
    host.scratch = scratch.data();
    host.out = expected.data();
    cuda_emulation::kCudaTable.attention(host, nullptr);
    AttentionArgs there = args;
    there.query = Upload(query);
    there.layer.blocks = reinterpret_cast<std::byte*>(Upload(cache));
    const uint32_t* table = Upload(blocks);
    there.block_tables = Upload(std::vector<const uint32_t*>(kNodes, table));
    there.lengths = Upload(lengths);
    there.tree_begin = Upload(begins);
    there.ancestors = Upload(ancestors);
    there.slopes = Upload(slopes);
    there.scratch = Upload(scratch);
    there.out = Upload(std::vector<float>(query.size(), -1.0f));
    table_->attention(there, stream_.handle());
    const std::vector<float> actual = Download(there.out, query.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_TRUE(std::fabs(actual[i] - expected[i]) <= 2e-4f)
          << "run " << run << ": " << actual[i] << ", " << expected[i];
    }
  }
}

// What is left is compared with the emulation: the same source, other sines and exponentials.
TEST_P(CudaDevice, SmallOperationsGiveWhatTheEmulationGives) {
  std::mt19937 random(4);
  constexpr int64_t kTokens = 5;
  constexpr int64_t kWidth = 384;
  const std::vector<float> x = test::RandomFloats(kTokens * kWidth, random, 3);
  const std::vector<float> weight = test::RandomFloats(kWidth, random);
  const std::vector<int32_t> positions = {0, 1, 77, 4095, 100000};
  std::vector<float> frequencies;
  for (int i = 0; i < 32; ++i)
    frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / 32));
  const auto run = [&](const OpTable& ops, const float* x_in, const float* w, const int32_t* p,
                       const float* f, float* y, CUstream_st* stream) {
    ops.rms_norm({x_in, kWidth, w, kWidth, 1e-5f, false, y, kWidth, 0, kTokens}, stream);
    ops.rope({y, kWidth, p, f, 1.0f, kWidth / 64, 64, 64, 0, kTokens}, stream);
    ops.scale_add({y, kWidth, 1.5f, x_in, kWidth, kWidth, 0, kTokens}, stream);
    ops.layer_norm({y, kWidth, w, w, kWidth, 1e-5f, y, kWidth, 0, kTokens}, stream);
    ops.activate({Activation::kGeluTanh, y, x_in, kWidth, kWidth, y, kWidth, 0, kTokens}, stream);
    ops.softcap({y, 5.0f, 0, kTokens * kWidth}, stream);
  };
  std::vector<float> expected(x.size());
  run(cuda_emulation::kCudaTable, x.data(), weight.data(), positions.data(), frequencies.data(),
      expected.data(), nullptr);
  float* y = Upload(std::vector<float>(x.size(), -1.0f));
  run(*table_, Upload(x), Upload(weight), Upload(positions), Upload(frequencies), y,
      stream_.handle());
  const std::vector<float> actual = Download(y, x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(std::fabs(actual[i] - expected[i]) <= 1e-4f) << actual[i] << ", " << expected[i];
  }
}

TEST_P(CudaDevice, TheLargestOfAVocabularyAreThoseOfASort) {
  std::mt19937 random(6);
  const int64_t width = GetParam() == test::Where::kEmulated ? 3000 : 128256;
  constexpr int64_t kRows = 3;
  std::vector<float> x = test::RandomFloats(static_cast<size_t>(kRows * width), random, 5);
  // The last row favours a few threads, so that a bound of the threads' largest keeps too many.
  for (int64_t i = 0; i < width; ++i) {
    if (i % 512 < 60) x[static_cast<size_t>(2 * width + i)] += 100.0f;
  }
  for (int64_t count : {1, 40, 256}) {
    const auto size = static_cast<size_t>(kRows * count);
    TopKArgs args = {Upload(x), width, kRows, width, count, nullptr, nullptr, nullptr};
    args.values = Upload(std::vector<float>(size));
    args.indices = Upload(std::vector<int32_t>(size));
    args.weight_sums = Upload(std::vector<float>(kRows));
    table_->top_k(args, stream_.handle());
    const std::vector<int32_t> indices = Download(args.indices, size);
    const std::vector<float> values = Download(args.values, size);
    const std::vector<float> sums = Download(args.weight_sums, kRows);
    for (int64_t row = 0; row < kRows; ++row) {
      const float* values_of_row = x.data() + row * width;
      std::vector<int32_t> expected(static_cast<size_t>(width));
      std::iota(expected.begin(), expected.end(), 0);
      std::stable_sort(expected.begin(), expected.end(),
                       [&](int32_t a, int32_t b) { return values_of_row[a] > values_of_row[b]; });
      double sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        sum += std::exp(double{values_of_row[i]} - double{values_of_row[expected[0]]});
      }
      for (int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<size_t>(row * count + i);
        ASSERT_EQ(indices[at], expected[static_cast<size_t>(i)]) << row << ", " << i;
        ASSERT_EQ(values[at], values_of_row[indices[at]]);
      }
      // As in cuda_top_k_test: the additions of a thread and a tree, and exponentials.
      const double terms = static_cast<double>(width) / 512 + 46;
      ASSERT_NEAR(sums[static_cast<size_t>(row)], sum, sum * 1.2e-7 * terms);
    }
  }
}

// Panels of weights of every type, activations and their powers of two: integers and roundings, so
// that a GPU gives the emulation's bits, which cuda_panel_test.cc holds against the file.
TEST_P(CudaDevice, WhatProductsInF16NeedIsWhatTheEmulationGives) {
  std::mt19937 random(11);
  constexpr int64_t kRows = 40;
  for (const WeightType& type : test::AllWeightTypes()) {
    const int64_t cols = test::ColsFor(type, 300);
    const WeightMatrix matrix =
        test::RandomMatrix(type, kRows, static_cast<uint64_t>(cols), 16, random);
    const GpuLayout gpu = *MakeGpuLayout(matrix.layout);
    std::vector<std::byte> tiles(static_cast<size_t>(3 * gpu.tile_bytes));
    RepackForGpu(matrix.layout, matrix.tiles.data(), 3, gpu, tiles.data());
    std::vector<uint16_t> expected(static_cast<size_t>(48 * PaddedF16Cols(cols)), 0x7e00);
    uint16_t* panel = Upload(expected);
    cuda_emulation::kCudaTable.unpack_f16({&matrix.layout, tiles.data(), 3, expected.data()},
                                          nullptr);
    table_->unpack_f16({&matrix.layout, Upload(tiles), 3, panel}, stream_.handle());
    ASSERT_EQ(Download(panel, expected.size()), expected) << WeightTypeName(type);
  }
  constexpr int64_t kTokens = 6;
  constexpr int64_t kCols = 300;
  std::vector<float> x = test::RandomFloats(kTokens * kCols, random);
  for (int64_t k = 0; k < kCols; ++k) {
    x[static_cast<size_t>(kCols + k)] *= 1e7f;
    x[static_cast<size_t>(2 * kCols + k)] *= 1e-6f;
  }
  x[3 * kCols + 7] = std::numeric_limits<float>::infinity();
  const int64_t padded = PaddedF16Cols(kCols);
  std::vector<uint16_t> values(static_cast<size_t>(kTokens * padded), 0x7e00);
  std::vector<int32_t> exponents(kTokens, 99);
  const F16Activations there = {Upload(values), Upload(exponents), padded};
  cuda_emulation::kCudaTable.round_f16(
      {x.data(), kCols, kCols, {values.data(), exponents.data(), padded}, 0, kTokens}, nullptr);
  table_->round_f16({Upload(x), kCols, kCols, there, 0, kTokens}, stream_.handle());
  EXPECT_EQ(Download(there.values, values.size()), values);
  EXPECT_EQ(Download(there.exponents, kTokens), exponents);
  std::vector<float> y = test::RandomFloats(kTokens * kRows, random);
  const std::vector<float> bias = test::RandomFloats(kRows, random);
  float* y_there = Upload(y);
  for (const bool down : {true, false}) {
    cuda_emulation::kCudaTable.shift_rows(
        {y.data(), kRows, kRows, bias.data(), exponents.data(), down, true, 0, kTokens}, nullptr);
    table_->shift_rows(
        {y_there, kRows, kRows, Upload(bias), there.exponents, down, true, 0, kTokens},
        stream_.handle());
  }
  EXPECT_EQ(Download(y_there, y.size()), y);
}

TEST_P(CudaDevice, ARecordingOfKernelsSeesWhatIsThereWhenItIsStarted) {
  if (GetParam() == test::Where::kEmulated) return;  // the host does not record
  constexpr int64_t kWidth = 1000;
  std::vector<float> values(kWidth, 1.0f);
  float* y = Upload(values);
  ASSERT_TRUE(stream_.BeginCapture().ok());
  for (int i = 0; i < 3; ++i) {
    table_->scale_add({y, kWidth, 2.0f, nullptr, 0, kWidth, 0, 1}, stream_.handle());
  }
  const Result<DeviceGraph> graph = stream_.EndCapture();
  ASSERT_TRUE(graph.ok()) << graph.status().message();
  EXPECT_EQ(Download(y, kWidth), values);
  for (float expected : {8.0f, 64.0f}) {
    const Status status = stream_.Launch(*graph);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(Download(y, kWidth), std::vector<float>(kWidth, expected));
  }
}

TEST_P(CudaDevice, TwoRunsGiveTheSameBits) {
  for (const WeightType& type : {WeightType{WeightKind::kInt4, WeightOffset::kNone, 128},
                                 WeightType{WeightKind::kF16, WeightOffset::kNone, 0}}) {
    for (int64_t tokens : {4, 33}) {
      EXPECT_EQ(Multiply(type, 50, 512, tokens, 9).y, Multiply(type, 50, 512, tokens, 9).y);
    }
  }
}

}  // namespace
}  // namespace sluice
