// Several products in one call, emulated: the bits of single calls, in as few launches as types and
// activations allow.
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using test::ActivationBuffer;
using test::WeightMatrix;

constexpr float kBefore = -12345.0f;

// One matrix on the GPU, with its bias and its part of the result; allocations have the very size.
struct Product {
  Product(const WeightType& type, int64_t rows, int64_t cols, bool has_bias, bool add_to_y,
          std::mt19937& random)
      : matrix(test::RandomMatrix(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                                  16, random)),
        num_tiles(static_cast<int64_t>(matrix.layout.num_tiles)),
        rows(rows),
        has_bias(has_bias),
        add_to_y(add_to_y),
        bias(test::RandomFloats(static_cast<size_t>(rows), random)) {
    const GpuLayout gpu = *MakeGpuLayout(matrix.layout);
    tiles.resize(static_cast<size_t>(num_tiles * gpu.tile_bytes));
    RepackForGpu(matrix.layout, matrix.tiles.data(), num_tiles, gpu, tiles.data());
  }

  // Of `tokens` tokens into `y`, which is made.
  MatmulArgs Args(const float* x, const QuantizedActivations* xq, int64_t tokens,
                  std::vector<float>* y) const {
    const auto cols = static_cast<int64_t>(matrix.layout.cols);
    y->assign(static_cast<size_t>(tokens * (rows + 1)), kBefore);
    return {&matrix.layout,
            tiles.data(),
            num_tiles,
            rows,
            x,
            cols,
            xq,
            tokens,
            has_bias ? bias.data() : nullptr,
            add_to_y,
            y->data(),
            rows + 1,
            0,
            (cols + 127) / 128};
  }

  WeightMatrix matrix;
  int64_t num_tiles, rows;
  bool has_bias, add_to_y;
  std::vector<float> bias;
  std::vector<std::byte> tiles;
};

// Activations of every group size, quantized once.
class Activations {
 public:
  Activations(int64_t tokens, int64_t cols, std::mt19937& random)
      : x_(test::RandomFloats(static_cast<size_t>(tokens * cols), random)) {
    for (const int64_t group : {16, 32, 64, 128}) {
      buffers_.emplace_back(tokens, cols, group);
      views_.push_back(buffers_.back().view());
      kCudaTable.quantize({x_.data(), cols, cols, views_.back(), 0, tokens}, nullptr);
    }
  }
  const float* x() const { return x_.data(); }
  const QuantizedActivations* For(const WeightType& type) const {
    if (!type.quantized()) return nullptr;
    size_t i = 0;
    while (views_[i].group_size != ActivationGroup(type)) ++i;
    return &views_[i];
  }

 private:
  std::vector<float> x_;
  std::vector<ActivationBuffer> buffers_;
  std::vector<QuantizedActivations> views_;
};

int launches = 0;

// The launches of one call for all products, after single calls gave the same bits.
int LaunchesOf(const std::vector<Product>& products, int64_t tokens, std::mt19937& random) {
  const auto cols = static_cast<int64_t>(products[0].matrix.layout.cols);
  const Activations activations(tokens, cols, random);
  std::vector<std::vector<float>> alone(products.size());
  std::vector<std::vector<float>> together(products.size());
  std::vector<MatmulArgs> list;
  for (size_t i = 0; i < products.size(); ++i) {
    const Product& product = products[i];
    const QuantizedActivations* xq = activations.For(product.matrix.layout.type);
    kCudaTable.matmul(product.Args(activations.x(), xq, tokens, &alone[i]), nullptr);
    list.push_back(product.Args(activations.x(), xq, tokens, &together[i]));
  }
  launches = 0;
  cuda_emulation::SetLaunchHooks([](CUstream_st*) { ++launches; }, [](CUstream_st*) {});
  kCudaTable.matmul_several(list.data(), static_cast<int64_t>(list.size()), nullptr);
  cuda_emulation::SetLaunchHooks({}, {});
  for (size_t i = 0; i < products.size(); ++i) {
    for (size_t at = 0; at < alone[i].size(); ++at) {
      if (test::SameBits(together[i][at], alone[i][at])) continue;
      ADD_FAILURE() << "matrix " << i << " of " << products.size() << ", " << tokens
                    << " tokens, element " << at << ": " << together[i][at] << ", not "
                    << alone[i][at];
      return 0;
    }
  }
  return launches;
}

constexpr WeightType kInt4{WeightKind::kInt4, WeightOffset::kZeroPoint, 128};
constexpr WeightType kInt4By32{WeightKind::kInt4, WeightOffset::kMinimum, 32};
constexpr WeightType kInt4OfRows{WeightKind::kInt4, WeightOffset::kNone, 128};
constexpr WeightType kInt8OfRows{WeightKind::kInt8, WeightOffset::kNone, 0};
constexpr WeightType kInt8{WeightKind::kInt8, WeightOffset::kNone, 128};
constexpr WeightType kQ4K{WeightKind::kQ4K, WeightOffset::kMinimum, 32};
constexpr WeightType kQ6K{WeightKind::kQ6K, WeightOffset::kNone, 16};
constexpr WeightType kF16{WeightKind::kF16, WeightOffset::kNone, 0};

TEST(CudaMatmulSeveral, OneToFourMatricesOfOneTypeAreOneLaunch) {
  std::mt19937 random(1);
  for (const int64_t tokens : {1, 8, 9, 16, 17, 64, 65}) {
    std::vector<Product> products;
    // Tiles that are not whole, one row, several blocks of the kernel for many tokens.
    for (const auto& [rows, bias, add] :
         {std::tuple(39, true, false), std::tuple(1, false, true), std::tuple(130, false, false),
          std::tuple(16, true, true)}) {
      products.emplace_back(kInt4, rows, 300, bias, add, random);
      if (rows == 130 && tokens > 17) continue;
      EXPECT_EQ(LaunchesOf(products, tokens, random), 1);
    }
  }
}

TEST(CudaMatmulSeveral, TypesOfOneInstanceOfAKernelGoTogether) {
  std::mt19937 random(2);
  for (const int64_t tokens : {2, 20}) {
    // Minima and zero points, scales of rows and of groups, K types: their tiles have other sizes.
    std::vector<Product> products;
    products.emplace_back(kInt4By32, 20, 512, false, false, random);
    products.emplace_back(kQ4K, 33, 512, true, false, random);
    EXPECT_EQ(LaunchesOf(products, tokens, random), 1);
    products.clear();
    products.emplace_back(kInt8OfRows, 16, 200, false, false, random);
    products.emplace_back(kInt8, 17, 200, false, true, random);
    EXPECT_EQ(LaunchesOf(products, tokens, random), 1);
    products.clear();
    products.emplace_back(kInt4, 5, 200, false, false, random);
    products.emplace_back(kInt4OfRows, 35, 200, false, false, random);
    EXPECT_EQ(LaunchesOf(products, tokens, random), 1);
  }
}

TEST(CudaMatmulSeveral, OtherTypesBetweenThemAreLaunchesOfTheirOwn) {
  std::mt19937 random(3);
  for (const int64_t tokens : {1, 9, 33}) {
    std::vector<Product> products;
    products.emplace_back(kQ4K, 40, 256, false, false, random);
    products.emplace_back(kQ6K, 17, 256, true, false, random);
    products.emplace_back(kQ4K, 16, 256, false, true, random);
    EXPECT_EQ(LaunchesOf(products, tokens, random), 2);
    products.emplace_back(kF16, 19, 256, false, false, random);
    EXPECT_EQ(LaunchesOf(products, tokens, random), 3);
  }
}

TEST(CudaMatmulSeveral, FloatWeightsAndEmptyLists) {
  std::mt19937 random(4);
  std::vector<Product> products;
  products.emplace_back(kF16, 19, 100, true, false, random);
  products.emplace_back(kF16, 40, 100, false, true, random);
  EXPECT_EQ(LaunchesOf(products, 5, random), 2);
  kCudaTable.matmul_several(nullptr, 0, nullptr);
}

TEST(CudaMatmulSeveral, EveryOrderOfBlocksAndThreads) {
  std::mt19937 random(5);
  std::vector<Product> products;
  products.emplace_back(kInt4By32, 70, 700, true, false, random);
  products.emplace_back(kInt4By32, 10, 700, false, false, random);
  products.emplace_back(kInt4By32, 33, 700, false, true, random);
  for (const cuda_emulation::Order order : cuda_emulation::kAllOrders) {
    cuda_emulation::SetOrder(order);
    for (const int64_t tokens : {3, 12, 70}) EXPECT_EQ(LaunchesOf(products, tokens, random), 1);
  }
  cuda_emulation::SetOrder(cuda_emulation::Order::kAscending);
}

// Matrices that read other activations, or other channels of them, are right too.
TEST(CudaMatmulSeveral, ActivationsAndRangesOfTheirOwn) {
  std::mt19937 random(6);
  const Product first(kInt4By32, 20, 640, false, false, random);
  const Product second(kInt4By32, 24, 640, true, false, random);
  const Activations one(4, 640, random);
  const Activations other(4, 640, random);
  const QuantizedActivations* xq = one.For(kInt4By32);
  for (const QuantizedActivations* second_xq : {xq, other.For(kInt4By32)}) {
    std::vector<float> alone[2];
    std::vector<float> together[2];
    const auto list = [&](std::vector<float>(&y)[2]) {
      std::vector<MatmulArgs> args = {first.Args(nullptr, xq, 4, &y[0]),
                                      second.Args(nullptr, second_xq, 4, &y[1])};
      args[0].block_end = 2;
      args[1].block_begin = 1;
      return args;
    };
    for (const MatmulArgs& args : list(alone)) kCudaTable.matmul(args, nullptr);
    kCudaTable.matmul_several(list(together).data(), 2, nullptr);
    for (int i = 0; i < 2; ++i) {
      for (size_t at = 0; at < alone[i].size(); ++at) {
        ASSERT_TRUE(test::SameBits(together[i][at], alone[i][at])) << i << " " << at;
      }
    }
  }
}

TEST(CudaMatmulSeveral, TheEmulatedGpuChecksEachMatrixAndKeepsWhatARecordingNeeds) {
  test::FakeDevice device;
  test::EmulatedGpu gpu(&device);
  Result<DeviceStream> stream = device.CreateStream();
  const WeightType type{WeightKind::kInt4, WeightOffset::kNone, 32};
  const GpuLayout layout = *MakeGpuLayout(*MakeTileLayout(type, 16, 64, 16));
  const Result<DeviceBuffer> tiles = device.Allocate(static_cast<uint64_t>(layout.tile_bytes));
  const Result<DeviceBuffer> memory = device.Allocate(4096);
  const Result<DeviceBuffer> y = device.Allocate(2 * 16 * sizeof(float));
  ASSERT_TRUE(stream->Fill(tiles->data(), 0, tiles->size_bytes()).ok());
  ASSERT_TRUE(stream->Fill(memory->data(), 0, memory->size_bytes()).ok());
  const auto start = [&](int64_t second_rows) {
    // Neither layout nor activations outlive the call.
    const TileLayout tile_layout = *MakeTileLayout(type, 16, 64, 16);
    const QuantizedActivations xq = {reinterpret_cast<int8_t*>(memory->data()),
                                     reinterpret_cast<float*>(memory->data() + 1024),
                                     reinterpret_cast<int32_t*>(memory->data() + 2048),
                                     32,
                                     2,
                                     64};
    auto* result = reinterpret_cast<float*>(y->data());
    const MatmulArgs args[] = {
        {&tile_layout, tiles->data(), 1, 16, nullptr, 0, &xq, 1, nullptr, false, result, 16, 0, 1},
        {&tile_layout, tiles->data(), 1, second_rows, nullptr, 0, &xq, 1, nullptr, false,
         result + 16, 16, 0, 1}};
    test::EmulatedGpu::table().matmul_several(args, 2, stream->handle());
  };
  start(16);
  EXPECT_TRUE(gpu.TakeProblems().empty());
  EXPECT_EQ(gpu.launches(), 1);
  start(17);
  EXPECT_EQ(gpu.TakeProblems(), std::vector<std::string>{"matmul_several: y is not in its memory"});
  EXPECT_EQ(gpu.launches(), 1);

  ASSERT_TRUE(stream->BeginCapture().ok());
  start(16);
  const Result<DeviceGraph> graph = stream->EndCapture();
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(gpu.launches(), 1);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(stream->Launch(*graph).ok());
    ASSERT_TRUE(stream->Synchronize().ok());
    EXPECT_EQ(gpu.launches(), 2 + i);
  }
  EXPECT_TRUE(gpu.TakeProblems().empty());
}

}  // namespace
}  // namespace sluice
