// Operations that follow each other in a device's memory, without the host waiting between them:
// kernels start early there, and those that are several in one give the bits of those one by one.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/support.h"
#include "tests/support/cuda_emulation/device_case.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

// A layer's operations over rows of one width, so that all of them can follow each other for long.
class CudaOverlap : public test::DeviceCase {
 protected:
  static constexpr int64_t kWidth = 512;
  static constexpr int64_t kHeads = 4;
  static constexpr int64_t kKvHeads = 2;
  static constexpr int64_t kDim = 64;
  static constexpr int64_t kKvWidth = kKvHeads * kDim;
  static constexpr int64_t kContext = 512;  // two partitions
  static constexpr int64_t kBlockBytes = kKvHeads * 2 * 16 * kDim * 2;

  void SetUp() override {
    DeviceCase::SetUp();
    if (IsSkipped()) return;
    std::mt19937 random(5);
    const auto matrix = [&](int64_t rows) {
      const test::WeightMatrix weights = test::RandomMatrix(
          {WeightKind::kInt4, WeightOffset::kNone, 32}, static_cast<uint64_t>(rows),
          static_cast<uint64_t>(kWidth), 16, random);
      const GpuLayout gpu = *MakeGpuLayout(weights.layout);
      const auto num_tiles = static_cast<int64_t>(weights.layout.num_tiles);
      std::vector<std::byte> tiles(static_cast<size_t>(num_tiles * gpu.tile_bytes));
      RepackForGpu(weights.layout, weights.tiles.data(), num_tiles, gpu, tiles.data());
      return Matrix{weights.layout, Upload(tiles), num_tiles};
    };
    query_matrix_ = matrix(kHeads * kDim);
    key_matrix_ = matrix(kKvWidth);
    value_matrix_ = matrix(kKvWidth);
    output_matrix_ = matrix(kWidth);
    norm_ = Upload(test::RandomFloats(kWidth, random));
    head_norm_ = Upload(test::RandomFloats(kDim, random));
    std::vector<float> frequencies;
    for (int i = 0; i < kDim / 2; ++i) {
      frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / (kDim / 2)));
    }
    frequencies_ = Upload(frequencies);
    hidden_values_ = test::RandomFloats(4 * kWidth, random);
    std::vector<uint16_t> cache(static_cast<size_t>(kContext / 16 * kBlockBytes / 2));
    for (uint16_t& value : cache) value = static_cast<uint16_t>(0x3000 + random() % 0x800);
    cache_values_ = cache;
  }

  struct Matrix {
    TileLayout layout;
    std::byte* tiles = nullptr;
    int64_t num_tiles = 0;
  };

  MatmulArgs ArgsOf(const Matrix& matrix, const float* x, const QuantizedActivations* xq,
                    int64_t tokens, float* y) const {
    return {.layout = &matrix.layout,
            .tiles = matrix.tiles,
            .num_tiles = matrix.num_tiles,
            .rows = static_cast<int64_t>(matrix.layout.rows),
            .x = x,
            .x_stride = kWidth,
            .xq = xq,
            .tokens = tokens,
            .bias = nullptr,
            .add_to_y = false,
            .y = y,
            .y_stride = static_cast<int64_t>(matrix.layout.rows),
            .block_begin = 0,
            .block_end = kWidth / 128};
  }

  struct Result {
    std::vector<float> hidden;
    std::vector<uint16_t> cache;
    bool operator==(const Result&) const = default;
  };

  // `rounds` layers, one behind the other; `after` is called behind each operation.
  Result Run(int64_t tokens, int rounds, bool fused, const std::function<void()>& after) {
    float* hidden = Upload(
        std::vector<float>(hidden_values_.begin(), hidden_values_.begin() + tokens * kWidth));
    float* normed = Upload(std::vector<float>(static_cast<size_t>(tokens * kWidth), -1.0f));
    float* query = Upload(std::vector<float>(static_cast<size_t>(tokens * kHeads * kDim), -1.0f));
    float* key = Upload(std::vector<float>(static_cast<size_t>(tokens * kKvWidth), -1.0f));
    float* value = Upload(std::vector<float>(static_cast<size_t>(tokens * kKvWidth), -1.0f));
    float* attended = Upload(std::vector<float>(static_cast<size_t>(tokens * kWidth), 0.0f));
    uint16_t* cache = Upload(cache_values_);
    const QuantizedActivations xq = UploadQuantized(tokens, kWidth, 32);
    std::vector<uint32_t> blocks;
    for (uint32_t i = 0; i < kContext / 16; ++i) blocks.push_back(kContext / 16 - 1 - i);
    const uint32_t* table = Upload(blocks);
    std::vector<int32_t> positions;
    std::vector<int64_t> slots, lengths;
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t position = kContext - tokens + t;
      positions.push_back(static_cast<int32_t>(position));
      slots.push_back(blocks[static_cast<size_t>(position / 16)] * 16 + position % 16);
      lengths.push_back(position + 1);
    }
    const KvLayer layer = {reinterpret_cast<std::byte*>(cache), kBlockBytes, KvType::kF16, kKvHeads,
                           kDim};
    const auto rope = [&, at = Upload(positions)](float* x, int64_t heads) {
      return RopeArgs{x, heads * kDim, at, frequencies_, 1.0f, heads, kDim, kDim, 0, tokens};
    };
    const StoreKvArgs store = {key, value, kKvWidth, layer, Upload(slots), 0, tokens};
    AttentionArgs attention = {};
    attention.query = query;
    attention.query_stride = kHeads * kDim;
    attention.num_heads = kHeads;
    attention.layer = layer;
    attention.block_tables = Upload(std::vector<const uint32_t*>(blocks.size(), table));
    attention.lengths = Upload(lengths);
    attention.scale = 0.125f;
    attention.out = attended;
    attention.out_stride = kWidth;
    attention.item_end = tokens * kKvHeads;
    attention.longest_length = kContext;
    attention.longest_run = tokens;
    attention.scratch_size = GpuAttentionScratch(tokens, kHeads, kDim, kContext);
    attention.scratch =
        Upload(std::vector<float>(static_cast<size_t>(attention.scratch_size), 0.0f));
    CUstream_st* const stream = stream_.handle();
    const auto quantize = [&](const float* x) {
      table_->quantize({x, kWidth, kWidth, xq, 0, tokens}, stream);
      after();
    };
    const auto norm_head = [&](float* x, int64_t heads) {
      table_->rms_norm({x, kDim, head_norm_, kDim, 1e-5f, false, x, kDim, 0, tokens * heads},
                       stream);
      after();
      table_->rope(rope(x, heads), stream);
      after();
    };
    const MatmulArgs inputs[] = {ArgsOf(query_matrix_, normed, &xq, tokens, query),
                                 ArgsOf(key_matrix_, normed, &xq, tokens, key),
                                 ArgsOf(value_matrix_, normed, &xq, tokens, value)};
    for (int round = 0; round < rounds; ++round) {
      RmsNormArgs norm = {hidden, kWidth, norm_, kWidth, 1e-5f, false, normed, kWidth, 0, tokens};
      if (fused) norm.quantized = &xq;
      table_->rms_norm(norm, stream);
      after();
      if (fused) {
        table_->matmul_several(inputs, 3, stream);
        after();
        table_->rotate_store(
            {rope(query, kHeads), rope(key, kKvHeads), store, head_norm_, head_norm_, 1e-5f},
            stream);
        after();
      } else {
        quantize(normed);
        for (const MatmulArgs& input : inputs) {
          table_->matmul(input, stream);
          after();
        }
        norm_head(query, kHeads);
        norm_head(key, kKvHeads);
        table_->store_kv(store, stream);
        after();
      }
      table_->attention(attention, stream);
      after();
      ActivateArgs activate = {Activation::kSilu, normed, attended, kWidth, kWidth,
                               attended,          kWidth, 0,        tokens};
      if (fused) activate.quantized = &xq;
      table_->activate(activate, stream);
      after();
      if (!fused) quantize(attended);
      MatmulArgs output = ArgsOf(output_matrix_, attended, &xq, tokens, hidden);
      output.add_to_y = true;
      table_->matmul(output, stream);
      after();
    }
    return {Download(hidden, static_cast<size_t>(tokens * kWidth)),
            Download(cache, cache_values_.size())};
  }

  Matrix query_matrix_, key_matrix_, value_matrix_, output_matrix_;
  float* norm_ = nullptr;
  float* head_norm_ = nullptr;
  float* frequencies_ = nullptr;
  std::vector<float> hidden_values_;
  std::vector<uint16_t> cache_values_;
};

INSTANTIATE_TEST_SUITE_P(Where, CudaOverlap,
                         testing::Values(test::Where::kEmulated, test::Where::kGpu),
                         test::NameOfPlace);

TEST_P(CudaOverlap, LayersInARowHaveTheBitsOfOperationsThatAreWaitedFor) {
  const bool gpu = GetParam() == test::Where::kGpu;
  const auto wait = [this] { ASSERT_TRUE(stream_.Synchronize().ok()); };
  const auto go_on = [] {};
  for (int64_t tokens : {1, 4}) {
    const int rounds = gpu ? 100 : 2;
    const Result expected = Run(tokens, rounds, false, wait);
    for (float value : expected.hidden) ASSERT_TRUE(std::isfinite(value));
    ASSERT_NE(expected.hidden[0], hidden_values_[0]);
    for (int repeat = 0; repeat < (gpu ? 20 : 1); ++repeat) {
      ASSERT_EQ(Run(tokens, rounds, false, go_on), expected) << tokens;
      ASSERT_EQ(Run(tokens, rounds, true, go_on), expected) << tokens;
    }
  }
}

}  // namespace
}  // namespace sluice
