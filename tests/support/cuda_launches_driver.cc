// Starts every CUDA kernel of every variant once, emulated, and prints how: kernel, threads of a
// block, bytes of shared memory (of the largest weight type). For cuda_resources_test.py.
#include <algorithm>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/support.h"
#include "tests/support/numeric_contract.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;

constexpr int64_t kCols = 256;

void Matmuls() {
  std::mt19937 random(1);
  for (const WeightType& type : test::AllWeightTypes()) {
    const test::WeightMatrix matrix = test::RandomMatrix(type, 16, kCols, 16, random);
    const Result<GpuLayout> gpu = MakeGpuLayout(matrix.layout);
    if (!gpu.ok()) continue;
    std::vector<std::byte> tiles(static_cast<size_t>(gpu->tile_bytes));
    RepackForGpu(matrix.layout, matrix.tiles.data(), 1, *gpu, tiles.data());
    for (int64_t tokens : {1, 8, 16, 32, 64, 128}) {
      const std::vector<float> x(static_cast<size_t>(tokens * kCols), 1.0f);
      std::vector<float> y(static_cast<size_t>(tokens * 16));
      test::ActivationBuffer quantized(tokens, kCols, ActivationGroup(type));
      const QuantizedActivations xq = quantized.view();
      kCudaTable.quantize({x.data(), kCols, kCols, xq, 0, tokens}, nullptr);
      kCudaTable.matmul({&matrix.layout, tiles.data(), 1, 16, x.data(), kCols, &xq, tokens, nullptr,
                         false, y.data(), 16, 0, 2},
                        nullptr);
    }
    std::vector<uint16_t> panel(16 * kCols);
    kCudaTable.unpack_f16({&matrix.layout, tiles.data(), 1, panel.data()}, nullptr);
    std::vector<float> row(kCols);
    const std::byte* tile = tiles.data();
    const uint32_t in_tile = 3;
    kCudaTable.gather_rows({&matrix.layout, &tile, &in_tile, 1, row.data(), kCols}, nullptr);
  }
}

void Attentions() {
  constexpr int64_t kLength = 512;
  for (int64_t dim : {64, 128, 256}) {
    std::vector<uint16_t> cache(static_cast<size_t>(kLength * 2 * dim), 0);
    const int64_t block_bytes = 16 * 2 * dim * 2;
    const KvLayer layer = {reinterpret_cast<std::byte*>(cache.data()), block_bytes, KvType::kF16, 1,
                           dim};
    std::vector<uint32_t> table;
    for (uint32_t i = 0; i < kLength / 16; ++i) table.push_back(i);
    // With few, some and many columns, and as a prefill.
    for (const auto& [heads, run] :
         {std::pair{1, int64_t{1}}, std::pair{8, int64_t{1}}, std::pair{16, int64_t{1}},
          std::pair{1, kGpuMostSplitRun + 1}}) {
      const std::vector<float> query(static_cast<size_t>(heads * dim), 1.0f);
      std::vector<float> out(static_cast<size_t>(heads * dim));
      const uint32_t* blocks = table.data();
      const int64_t length = kLength;
      std::vector<float> scratch(static_cast<size_t>(GpuAttentionScratch(1, heads, dim, kLength)));
      AttentionArgs args = {.query = query.data(),
                            .query_stride = heads * dim,
                            .num_heads = heads,
                            .layer = layer,
                            .block_tables = &blocks,
                            .lengths = &length,
                            .window = 0,
                            .scale = 1.0f,
                            .softcap = 0,
                            .out = out.data(),
                            .out_stride = heads * dim,
                            .item_begin = 0,
                            .item_end = 1,
                            .longest_length = kLength,
                            .longest_run = run,
                            .scratch = scratch.data(),
                            .scratch_size = static_cast<int64_t>(scratch.size())};
      kCudaTable.attention(args, nullptr);
      const int64_t tree_begin = kLength - 3;
      const uint64_t ancestors = 0b101;
      args.tree_begin = &tree_begin;
      args.ancestors = &ancestors;
      kCudaTable.attention(args, nullptr);
    }
  }
}

// Rows for which a block has as many threads as it can have.
void Norms() {
  constexpr int64_t kWidth = 4096;
  std::vector<float> x(kWidth, 1.0f);
  kCudaTable.rms_norm({.x = x.data(),
                       .x_stride = kWidth,
                       .weight = x.data(),
                       .width = kWidth,
                       .eps = 1e-5f,
                       .add_to_y = false,
                       .y = x.data(),
                       .y_stride = kWidth,
                       .token_begin = 0,
                       .token_end = 1},
                      nullptr);
  kCudaTable.layer_norm(
      {x.data(), kWidth, x.data(), nullptr, kWidth, 1e-5f, x.data(), kWidth, 0, 1}, nullptr);
}

void Others() {
  std::vector<float> x(kCols, 1.0f);
  const int32_t position = 3;
  const int64_t slot = 0;
  std::vector<std::byte> cache(16 * 2 * kCols * 2);
  kCudaTable.scale_add({x.data(), kCols, 2.0f, nullptr, 0, kCols, 0, 1}, nullptr);
  int32_t best = 0;
  float sum = 0;
  cuda_emulation::TopK({x.data(), kCols, 1, kCols, 1, x.data(), &best, &sum}, nullptr);
  kCudaTable.softcap({x.data(), 2.0f, 0, kCols}, nullptr);
  std::vector<uint16_t> halves(kCols);
  int32_t exponent = 0;
  kCudaTable.round_f16({x.data(), kCols, kCols, {halves.data(), &exponent, kCols}, 0, 1}, nullptr);
  kCudaTable.shift_rows({x.data(), kCols, kCols, x.data(), &exponent, true, true, 0, 1}, nullptr);
  kCudaTable.activate({Activation::kSilu, x.data(), x.data(), kCols, kCols, x.data(), kCols, 0, 1},
                      nullptr);
  const KvLayer layer = {cache.data(), 16 * 2 * kCols * 2, KvType::kF16, 1, kCols};
  const StoreKvArgs store = {x.data(), x.data(), kCols, layer, &slot, 0, 1};
  const RopeArgs rope = {x.data(), kCols, &position, x.data(), 1.0f, 1, kCols, kCols, 0, 1};
  kCudaTable.rope(rope, nullptr);
  kCudaTable.store_kv(store, nullptr);
  kCudaTable.rotate_store({rope, rope, store, x.data(), x.data(), 1e-5f}, nullptr);
}

}  // namespace
}  // namespace sluice

int main() {
  sluice::Matmuls();
  sluice::Attentions();
  sluice::Norms();
  sluice::Others();
  for (const auto& launch : sluice::cuda_emulation::Launches()) {
    std::printf("%d %zu %.*s\n", launch.threads, launch.shared_bytes,
                static_cast<int>(launch.kernel.size()), launch.kernel.data());
  }
}
