// Whole models on the emulated GPU: operations that take several steps in one launch give the bits
// of those one by one, and a decode step has as few launches as that allows.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/cuda_emulation/model_runner.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using testing::GoldenModel;

// The table with one launch for each step.
OpTable OneByOne() {
  OpTable table = test::EmulatedGpu::table();
  table.matmul_several = nullptr;
  table.rotate_store = nullptr;
  table.quantizes_results = false;
  return table;
}

// A prompt, some tokens one by one, and a few together.
std::vector<float> Logits(const std::string& path, const OpTable& table,
                          const std::vector<int32_t>& ids) {
  test::ModelRunner model(path, table, KvType::kF16);
  std::vector<float> logits;
  const auto append = [&](size_t begin, size_t end) {
    const std::vector<float> some = model.Append(0, {ids.begin() + static_cast<ptrdiff_t>(begin),
                                                     ids.begin() + static_cast<ptrdiff_t>(end)});
    logits.insert(logits.end(), some.begin(), some.end());
  };
  append(0, 20);
  append(20, 21);
  append(21, 22);
  append(22, 25);
  return logits;
}

TEST(GpuFusion, ThePassHasTheBitsOfItsStepsOneByOne) {
  const OpTable one_by_one = OneByOne();
  for (const std::string& name : testing::ArchitectureGoldens()) {
    const GoldenModel golden = testing::LoadGolden(name);
    for (const char* quantization : {"keep", "int4", "int8"}) {
      SCOPED_TRACE(name + " " + quantization);
      const ScratchDirectory folder;
      const std::string path =
          testing::ConvertGolden(golden, quantization, folder / "model.sluice");
      const std::vector<float> expected = Logits(path, one_by_one, golden.tokens[0]);
      const std::vector<float> actual = Logits(path, test::EmulatedGpu::table(), golden.tokens[0]);
      ASSERT_EQ(actual.size(), expected.size());
      EXPECT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * sizeof(float)), 0);
    }
  }
}

int64_t LaunchesOfAStep(const OpTable& table, const std::string& path) {
  test::ModelRunner model(path, table, KvType::kF16);
  model.Append(0, {1, 2, 3});
  const int64_t before = model.gpu().launches();
  model.Append(0, {4});
  return model.gpu().launches() - before;
}

TEST(GpuFusion, ADecodeStepStartsTenKernelsForEachLayer) {
  const ScratchDirectory folder;
  const GoldenModel golden = testing::LoadGolden("gqa");  // a Llama of two layers
  const std::string path = testing::ConvertGolden(golden, "int4", folder / "model.sluice");
  // Norm with int8; q, k and v; rotation and store; attention over one partition; int8; output;
  // norm with int8; gate and up; activation with int8; down. At the end norm with int8 and head.
  EXPECT_EQ(LaunchesOfAStep(test::EmulatedGpu::table(), path), 2 * 10 + 2);
  // Norm, int8, q, k, v, two rotations, store, attention, int8, output, norm, int8, gate, up,
  // activation, int8, down. Norm, int8 and head.
  EXPECT_EQ(LaunchesOfAStep(OneByOne(), path), 2 * 18 + 3);
}

}  // namespace
}  // namespace sluice
