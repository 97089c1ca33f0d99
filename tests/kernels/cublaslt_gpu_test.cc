// Prompts in f16 through NVIDIA's library itself; skipped where no GPU or no library is.
#ifdef SLUICE_HAS_CUDA
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/f16_products.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "offload/device.h"
#include "tests/support/numeric_contract.h"

namespace sluice::cuda {
extern const OpTable kCudaTable;
}

namespace sluice {
namespace {

using test::WeightMatrix;

// The library itself, where a GPU and it are: tools/bench/gpu_report.sh asks for this test by name.
TEST(CublasLtOnGpu, ProductsAreThoseOfFloat64) {
  Result<std::unique_ptr<Device>> device = OpenCudaDevice(0);
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  Result<CublasLt> library = CublasLt::Load(CublasLt::Libraries());
  if (!library.ok()) GTEST_SKIP() << library.status().message();
  constexpr int64_t kRows = 1000;
  constexpr int64_t kCols = 1100;
  constexpr int64_t kTokens = 64;
  std::mt19937 random(12);
  const WeightMatrix matrix =
      test::RandomMatrix({WeightKind::kInt4, WeightOffset::kMinimum, 32}, kRows, kCols, 16, random);
  const GpuLayout gpu = *MakeGpuLayout(matrix.layout);
  const auto num_tiles = static_cast<int64_t>(matrix.layout.num_tiles);
  std::vector<std::byte> tiles(static_cast<size_t>(num_tiles * gpu.tile_bytes));
  RepackForGpu(matrix.layout, matrix.tiles.data(), num_tiles, gpu, tiles.data());
  const std::vector<float> x = test::RandomFloats(kTokens * kCols, random);
  const int64_t padded = PaddedF16Cols(kCols);
  const int64_t panel_values = 400 / 16 * 16 * padded;  // three panels
  Result<DeviceStream> stream = (*device)->CreateStream();
  ASSERT_TRUE(stream.ok());
  std::deque<DeviceBuffer> buffers;
  const auto allocate = [&](uint64_t size_bytes) {
    Result<DeviceBuffer> buffer = (*device)->Allocate(size_bytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    buffers.push_back(std::move(*buffer));
    return buffers.back().data();
  };
  std::byte* const tiles_there = allocate(tiles.size());
  auto* const x_there = reinterpret_cast<float*>(allocate(x.size() * 4));
  auto* const y_there = reinterpret_cast<float*>(allocate(kTokens * kRows * 4));
  const F16Activations x16 = {reinterpret_cast<uint16_t*>(allocate(kTokens * padded * 2)),
                              reinterpret_cast<int32_t*>(allocate(kTokens * 4)), padded};
  auto* const panel = reinterpret_cast<uint16_t*>(allocate(panel_values * 2));
  const Status opened =
      library->Open(allocate(kCublasLtWorkspaceBytes), kCublasLtWorkspaceBytes, kTokens);
  ASSERT_TRUE(opened.ok()) << opened.message();
  ASSERT_TRUE(
      stream->Copy(tiles_there, tiles.data(), tiles.size(), CopyDirection::kHostToDevice).ok());
  ASSERT_TRUE(stream->Copy(x_there, x.data(), x.size() * 4, CopyDirection::kHostToDevice).ok());
  const F16Products products(&cuda::kCudaTable, &*library, panel, panel_values);
  const auto multiply = [&](int64_t first, int64_t tokens) {
    cuda::kCudaTable.round_f16({x_there + first * kCols, kCols, kCols, x16, 0, tokens},
                               stream->handle());
    MatmulArgs args = {};
    args.layout = &matrix.layout;
    args.tiles = tiles_there;
    args.num_tiles = num_tiles;
    args.rows = kRows;
    args.tokens = tokens;
    args.y = y_there + first * kRows;
    args.y_stride = kRows;
    const Status status = products.Multiply(args, x16, stream->handle());
    EXPECT_TRUE(status.ok()) << status.message();
  };
  const auto download = [&] {
    std::vector<float> y(kTokens * kRows);
    EXPECT_TRUE(stream->Copy(y.data(), y_there, y.size() * 4, CopyDirection::kDeviceToHost).ok());
    const Status status = stream->Synchronize();
    EXPECT_TRUE(status.ok()) << status.message();
    return y;
  };
  multiply(0, kTokens);
  const std::vector<float> y = download();
  std::vector<float> row_values(kCols);
  for (int64_t row = 0; row < kRows; row += 7) {
    DequantizeRow(matrix.layout,
                  matrix.tiles.data() + static_cast<uint64_t>(row) / 16 * matrix.layout.tile_bytes,
                  static_cast<uint32_t>(row % 16), row_values.data());
    for (int64_t t = 0; t < kTokens; ++t) {
      double sum = 0;
      double magnitude = 0;
      for (int64_t k = 0; k < kCols; ++k) {
        const double product =
            double{F16ToFloat(FloatToF16(row_values[static_cast<size_t>(k)]))} *
            double{F16ToFloat(FloatToF16(x[static_cast<size_t>(t * kCols + k)]))};
        sum += product;
        magnitude += std::fabs(product);
      }
      // As in CudaDevice.FloatWeightsAreWithinTheirBound: 2 epsilon for each 8 terms.
      const double bound = magnitude * (static_cast<double>(kCols) / 8 + 8) * 0x1p-22;
      const float actual = y[static_cast<size_t>(t * kRows + row)];
      ASSERT_TRUE(std::fabs(actual - sum) <= bound) << actual << ", not " << sum;
    }
  }
  for (int64_t first = 0; first < kTokens; first += 17) {
    multiply(first, std::min<int64_t>(17, kTokens - first));
  }
  // What one hopes for, and no contract of the library.
  std::printf("%s: passes of 17 and of %d tokens give %s bits\n", library->description().c_str(),
              static_cast<int>(kTokens), download() == y ? "the same" : "other");
}

}  // namespace
}  // namespace sluice
#endif
