// Products of prompts in f16 through a cuBLASLt that multiplies on the host: what the library is
// asked for, and what comes out against float64.
#include "kernels/cuda/f16_products.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/cuda/launchers.h"
#include "tests/support/cuda_emulation/fake_f16_library.h"
#include "tests/support/numeric_contract.h"
#include "tests/support/weight_matrix.h"

namespace sluice {
namespace {

using cuda_emulation::kCudaTable;
using test::FakeF16Library;
using test::FakeProduct;
using test::WeightMatrix;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr float kUntouched = -12345.0f;
constexpr uint64_t kWorkspace = 4 << 20;

Result<CublasLt> LoadFake() { return CublasLt::Load(FakeF16Library::Libraries()); }

struct Case {
  WeightType type;
  int64_t rows, cols, tokens;
  int64_t panel_tiles;
  bool bias = false, add_to_y = false;
};

std::string Describe(const Case& c) {
  return WeightTypeName(c.type) + " " + std::to_string(c.rows) + " x " + std::to_string(c.cols) +
         ", " + std::to_string(c.tokens) + " tokens, panels of " + std::to_string(c.panel_tiles) +
         " tiles" + (c.bias ? ", bias" : "") + (c.add_to_y ? ", added" : "");
}

class F16ProductsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<CublasLt> library = LoadFake();
    ASSERT_TRUE(library.ok()) << library.status().message();
    library_.emplace(std::move(*library));
  }

  Status Open(int64_t most_tokens, uint64_t workspace_bytes = kWorkspace) {
    workspace_.resize(workspace_bytes);
    return library_->Open(workspace_.data(), workspace_bytes, most_tokens);
  }

  // A product of `c` with that matrix; the second token is out of f16's range, the third is tiny.
  Status Multiply(const Case& c, uint32_t seed) {
    std::mt19937 random(seed);
    matrix_ = test::RandomMatrix(c.type, static_cast<uint64_t>(c.rows),
                                 static_cast<uint64_t>(c.cols), 16, random);
    const TileLayout& layout = matrix_.layout;
    const GpuLayout gpu = *MakeGpuLayout(layout);
    const auto num_tiles = static_cast<int64_t>(layout.num_tiles);
    tiles_.assign(static_cast<size_t>(num_tiles * gpu.tile_bytes), std::byte{0});
    RepackForGpu(layout, matrix_.tiles.data(), num_tiles, gpu, tiles_.data());
    x_ = test::RandomFloats(static_cast<size_t>(c.tokens * c.cols), random);
    for (int64_t k = 0; k < c.cols; ++k) {
      if (c.tokens > 1) x_[static_cast<size_t>(c.cols + k)] *= 1e6f;
      if (c.tokens > 2) x_[static_cast<size_t>(2 * c.cols + k)] *= 1e-5f;
    }
    const int64_t width = PaddedF16Cols(c.cols);
    values_.assign(static_cast<size_t>(c.tokens * width), 0);
    exponents_.assign(static_cast<size_t>(c.tokens), 0);
    const F16Activations x = {values_.data(), exponents_.data(), width};
    kCudaTable.round_f16({x_.data(), c.cols, c.cols, x, 0, c.tokens}, nullptr);
    bias_ = test::RandomFloats(static_cast<size_t>(c.rows), random);
    y_stride_ = c.rows + 3;
    before_.assign(static_cast<size_t>(c.tokens * y_stride_), kUntouched);
    if (c.add_to_y) before_ = test::RandomFloats(before_.size(), random);
    y_ = before_;
    // What a product that is not added to must not read.
    if (!c.add_to_y) {
      for (int64_t t = 0; t < c.tokens; ++t) {
        std::fill_n(y_.begin() + t * y_stride_, c.rows, std::numeric_limits<float>::quiet_NaN());
      }
    }
    panel_.assign(static_cast<size_t>(c.panel_tiles * 16 * width), 0x7e00);
    const F16Products products(&kCudaTable, &*library_, panel_.data(),
                               static_cast<int64_t>(panel_.size()));
    MatmulArgs args = {.layout = &layout,
                       .tiles = tiles_.data(),
                       .num_tiles = num_tiles,
                       .rows = c.rows,
                       .x = nullptr,
                       .x_stride = 0,
                       .xq = nullptr,
                       .tokens = c.tokens,
                       .bias = c.bias ? bias_.data() : nullptr,
                       .add_to_y = c.add_to_y,
                       .y = y_.data(),
                       .y_stride = y_stride_,
                       .block_begin = 0,
                       .block_end = 0};
    return products.Multiply(args, x, nullptr);
  }

  // Products of f16 are exact in float64, as is their sum nearly; what is left are the roundings to
  // float32 of the sum and of what it is added to.
  void ExpectExact(const Case& c) {
    std::vector<float> row_values(static_cast<size_t>(c.cols));
    for (int64_t row = 0; row < c.rows; ++row) {
      DequantizeRow(
          matrix_.layout,
          matrix_.tiles.data() + static_cast<uint64_t>(row) / 16 * matrix_.layout.tile_bytes,
          static_cast<uint32_t>(row % 16), row_values.data());
      for (int64_t t = 0; t < c.tokens; ++t) {
        const int exponent = exponents_[static_cast<size_t>(t)];
        double sum = 0;
        double magnitude = 0;
        for (int64_t k = 0; k < c.cols; ++k) {
          const float x = x_[static_cast<size_t>(t * c.cols + k)];
          const double rounded =
              std::ldexp(double{F16ToFloat(FloatToF16(std::ldexp(x, -exponent)))}, exponent);
          const double w = F16ToFloat(FloatToF16(row_values[static_cast<size_t>(k)]));
          sum += w * rounded;
          magnitude += std::fabs(w * rounded);
        }
        const auto at = static_cast<size_t>(t * y_stride_ + row);
        for (const float more :
             {c.bias ? bias_[static_cast<size_t>(row)] : 0.0f, c.add_to_y ? before_[at] : 0.0f}) {
          sum += more;
          magnitude += std::fabs(more);
        }
        ASSERT_TRUE(std::fabs(y_[at] - sum) <= 2 * kEpsilon * magnitude)
            << "row " << row << " token " << t << ": " << y_[at] << ", not " << sum;
      }
    }
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t row = c.rows; row < y_stride_; ++row) {
        const auto at = static_cast<size_t>(t * y_stride_ + row);
        ASSERT_EQ(y_[at], before_[at]);
      }
    }
  }

  FakeF16Library fake_;
  std::optional<CublasLt> library_;
  std::vector<std::byte> workspace_;
  WeightMatrix matrix_;
  std::vector<std::byte> tiles_;
  std::vector<float> x_, bias_, before_, y_;
  std::vector<uint16_t> values_, panel_;
  std::vector<int32_t> exponents_;
  int64_t y_stride_ = 0;
};

TEST_F(F16ProductsTest, EveryTypeInOneAndInSeveralPanels) {
  ASSERT_TRUE(Open(7).ok());
  uint32_t seed = 0;
  for (const WeightType& type : test::AllWeightTypes()) {
    for (const int64_t panel_tiles : {1, 2, 9}) {
      ++seed;
      const Case c = {type,         49,          test::ColsFor(type, 30 + seed % 300),
                      1 + seed % 7, panel_tiles, seed % 2 == 0,
                      seed % 3 == 0};
      SCOPED_TRACE(Describe(c));
      const Status status = Multiply(c, seed);
      ASSERT_TRUE(status.ok()) << status.message();
      ASSERT_NO_FATAL_FAILURE(ExpectExact(c));
    }
  }
}

TEST_F(F16ProductsTest, TokensOutsideF16AreShiftedAndBack) {
  ASSERT_TRUE(Open(5).ok());
  for (const bool bias : {false, true}) {
    for (const bool add_to_y : {false, true}) {
      const Case c = {
          {WeightKind::kInt4, WeightOffset::kMinimum, 32}, 33, 200, 5, 1, bias, add_to_y};
      SCOPED_TRACE(Describe(c));
      ASSERT_TRUE(Multiply(c, 7).ok());
      EXPECT_GT(exponents_[1], 0);
      EXPECT_LT(exponents_[2], 0);
      EXPECT_EQ(exponents_[3], 0);
      ASSERT_NO_FATAL_FAILURE(ExpectExact(c));
    }
  }
}

TEST_F(F16ProductsTest, TheLibraryIsAskedForRowsOfOursAsColumnsOfIts) {
  ASSERT_TRUE(Open(6).ok());
  const Case c = {{WeightKind::kInt8, WeightOffset::kNone, 0}, 40, 100, 6, 2, false, false};
  ASSERT_TRUE(Multiply(c, 1).ok());
  // 40 rows in panels of at most 32: 32 and 8.
  ASSERT_EQ(fake_->products.size(), 2u);
  const int64_t rows[] = {32, 8};
  for (size_t i = 0; i < 2; ++i) {
    const FakeProduct& p = fake_->products[i];
    const auto m = static_cast<uint64_t>(rows[i]);
    EXPECT_TRUE(p.transpose_a);
    EXPECT_FALSE(p.transpose_b);
    EXPECT_EQ(p.compute_type, 68);  // CUBLAS_COMPUTE_32F
    EXPECT_EQ(p.a.type, 2);         // CUDA_R_16F
    EXPECT_EQ(p.d.type, 0);         // CUDA_R_32F
    EXPECT_EQ(p.a.rows, 128u);      // 100 columns of ours, padded
    EXPECT_EQ(p.a.cols, m);
    EXPECT_EQ(p.a.stride, 128);
    EXPECT_EQ(p.b.rows, 128u);
    EXPECT_EQ(p.b.cols, 6u);
    EXPECT_EQ(p.b.stride, 128);
    EXPECT_EQ(p.d.rows, m);
    EXPECT_EQ(p.d.cols, 6u);
    EXPECT_EQ(p.d.stride, 43);
    EXPECT_EQ(p.a_data, panel_.data());
    EXPECT_EQ(p.b_data, values_.data());
    EXPECT_EQ(p.c_data, p.d_data);
    EXPECT_EQ(p.d_data, y_.data() + 32 * i);
    EXPECT_EQ(p.alpha, 1);
    EXPECT_EQ(p.beta, 0);
    EXPECT_EQ(p.workspace, workspace_.data());
    EXPECT_EQ(p.workspace_bytes, kWorkspace);
  }
  ASSERT_EQ(fake_->choices.size(), 2u);
  EXPECT_EQ(fake_->choices[0].rows, 32u);
  EXPECT_EQ(fake_->choices[0].cols, 6u);
  EXPECT_EQ(fake_->choices[0].k, 128u);
  EXPECT_EQ(fake_->choices[0].workspace_bytes, kWorkspace);
  EXPECT_EQ(fake_->choices[0].reduction_schemes, 0u);
  // Rows of 43 floats begin on multiples of 4 bytes alone.
  EXPECT_THAT(fake_->choices[0].alignments, ::testing::ElementsAre(16, 16, 4, 4));
  ASSERT_TRUE(Multiply({c.type, 40, 100, 6, 3, false, true}, 1).ok());
  EXPECT_EQ(fake_->products.back().beta, 1);
}

TEST_F(F16ProductsTest, TheAlgorithmForTheMostTokensServesFewer) {
  ASSERT_TRUE(Open(20).ok());
  const WeightType type = {WeightKind::kF16, WeightOffset::kNone, 0};
  for (const int64_t tokens : {3, 20, 1}) {
    ASSERT_TRUE(Multiply({type, 16, 64, tokens, 1}, 2).ok());
    EXPECT_EQ(fake_->products.back().algorithm_cols, 20u);
  }
  EXPECT_EQ(fake_->choices.size(), 1u);
  // Another shape has another.
  ASSERT_TRUE(Multiply({type, 16, 96, 3, 1}, 2).ok());
  EXPECT_EQ(fake_->choices.size(), 2u);
  // Where it does not serve, one for the number of tokens is asked for.
  fake_->least_check_cols = 10;
  const Case few = {type, 16, 64, 4, 1};
  ASSERT_TRUE(Multiply(few, 2).ok());
  EXPECT_EQ(fake_->products.back().algorithm_cols, 4u);
  ASSERT_NO_FATAL_FAILURE(ExpectExact(few));
  ASSERT_TRUE(Multiply({type, 16, 64, 10, 1}, 2).ok());
  EXPECT_EQ(fake_->products.back().algorithm_cols, 20u);
}

TEST_F(F16ProductsTest, NoTokensAreNoWork) {
  ASSERT_TRUE(Open(4).ok());
  ASSERT_TRUE(Multiply({{WeightKind::kF16, WeightOffset::kNone, 0}, 16, 64, 0, 1}, 2).ok());
  EXPECT_TRUE(fake_->products.empty());
}

TEST_F(F16ProductsTest, ATokenThatIsNotFiniteSpoilsNoOther) {
  ASSERT_TRUE(Open(4).ok());
  const Case c = {{WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, 30, 300, 4, 1};
  ASSERT_TRUE(Multiply(c, 9).ok());
  const std::vector<float> expected = y_;
  // The same again, with the first token spoiled.
  const int64_t width = PaddedF16Cols(c.cols);
  x_[77] = std::numeric_limits<float>::infinity();
  x_[78] = -x_[77];
  const F16Activations x = {values_.data(), exponents_.data(), width};
  kCudaTable.round_f16({x_.data(), c.cols, c.cols, x, 0, c.tokens}, nullptr);
  const F16Products products(&kCudaTable, &*library_, panel_.data(),
                             static_cast<int64_t>(panel_.size()));
  const MatmulArgs args = {.layout = &matrix_.layout,
                           .tiles = tiles_.data(),
                           .num_tiles = static_cast<int64_t>(matrix_.layout.num_tiles),
                           .rows = c.rows,
                           .x = nullptr,
                           .x_stride = 0,
                           .xq = nullptr,
                           .tokens = c.tokens,
                           .bias = nullptr,
                           .add_to_y = false,
                           .y = y_.data(),
                           .y_stride = y_stride_,
                           .block_begin = 0,
                           .block_end = 0};
  ASSERT_TRUE(products.Multiply(args, x, nullptr).ok());
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t row = 0; row < c.rows; ++row) {
      const auto at = static_cast<size_t>(t * y_stride_ + row);
      if (t == 0) {
        EXPECT_FALSE(std::isfinite(y_[at])) << row;
      } else {
        EXPECT_TRUE(test::SameBits(y_[at], expected[at])) << t << ", " << row;
      }
    }
  }
}

TEST_F(F16ProductsTest, EveryCallThatTheLibraryRefusesIsAnErrorThatLeavesNothing) {
  const Case c = {{WeightKind::kF16, WeightOffset::kNone, 0}, 16, 64, 2, 1};
  for (const char* function :
       {"Create", "MatmulDescCreate", "MatmulDescSetAttribute", "MatrixLayoutCreate",
        "MatmulPreferenceCreate", "MatmulPreferenceSetAttribute", "MatmulAlgoGetHeuristic",
        "Matmul"}) {
    for (const auto& [status, code] :
         {std::pair(3, ErrorCode::kOutOfMemory), std::pair(8, ErrorCode::kUnsupported),
          std::pair(15, ErrorCode::kUnsupported), std::pair(1, ErrorCode::kIo),
          std::pair(13, ErrorCode::kIo)}) {
      library_.emplace(std::move(*LoadFake()));
      fake_->errors = {{function, status}};
      Status got = Open(2);
      if (got.ok()) got = Multiply(c, 3);
      EXPECT_EQ(got.code(), code) << function << " " << status;
      EXPECT_THAT(got.message(),
                  AllOf(StartsWith("cuBLASLt 13.2.5"), HasSubstr("(" + std::to_string(status))));
    }
  }
  EXPECT_TRUE(fake_->products.empty());
  fake_->errors.clear();
  library_.emplace(std::move(*LoadFake()));
  ASSERT_TRUE(Open(2).ok());
  EXPECT_TRUE(Multiply(c, 3).ok());
  // The handle, the operation and the preference live on; the matrices of a product do not.
  EXPECT_EQ(fake_->live_objects, 3);
  library_.reset();
  EXPECT_EQ(fake_->live_objects, 0);
}

TEST_F(F16ProductsTest, WithoutAnAlgorithmOrRoomForOneItIsNotSupported) {
  const Case c = {{WeightKind::kF16, WeightOffset::kNone, 0}, 16, 64, 2, 1};
  ASSERT_TRUE(Open(2, 1 << 10).ok());
  Status status = Multiply(c, 3);
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(), HasSubstr("an algorithm for a product of 16 x 64 with 2 tokens"));
  library_.emplace(std::move(*LoadFake()));
  ASSERT_TRUE(Open(2).ok());
  fake_->no_algorithm = true;
  EXPECT_EQ(Multiply(c, 3).code(), ErrorCode::kUnsupported);
}

TEST(CublasLt, ALibraryThatIsNotThereOrNotItIsNoErrorButAReason) {
  const Result<CublasLt> none = CublasLt::Load(std::vector<std::string>{"libno-such.so.13"});
  EXPECT_EQ(none.status().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(none.status().message(),
              AllOf(HasSubstr("there is no cuBLASLt"), HasSubstr("libno-such.so.13")));
  const Result<CublasLt> another =
      CublasLt::Load(std::vector<std::string>{"libno-such.so.13", "libm.so.6"});
  EXPECT_EQ(another.status().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(another.status().message(), AllOf(HasSubstr("libno-such.so.13"),
                                                HasSubstr("libm.so.6 has no cublasLtGetVersion")));
  EXPECT_FALSE(CublasLt::Load({}).ok());
}

TEST(CublasLt, TheFirstLibraryThatServesIsTaken) {
  const FakeF16Library fake;
  const std::string there = FakeF16Library::Libraries()[0];
  const Result<CublasLt> library =
      CublasLt::Load(std::vector<std::string>{"libno-such.so.13", "libm.so.6", there, "libc.so.6"});
  ASSERT_TRUE(library.ok()) << library.status().message();
  EXPECT_EQ(library->description(), "cuBLASLt 13.2.5 (" + there + ")");
  EXPECT_THAT(CublasLt::Libraries(),
              ::testing::ElementsAre("libcublasLt.so.13", "libcublasLt.so.12"));
}

}  // namespace
}  // namespace sluice
