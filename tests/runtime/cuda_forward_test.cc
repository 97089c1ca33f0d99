// Whole models through the CUDA operations, emulated, with weights in the GPU's layout.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/cuda_emulation/model_runner.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using test::DistanceOf;
using test::LogitsDistance;
using testing::GoldenModel;

// Teacher-forced: 40 tokens in one pass, then some one by one, then a few together; two sequences.
std::vector<float> AllLogits(const std::string& path, const OpTable& table, KvType kv_type,
                             const GoldenModel& golden) {
  test::ModelRunner model(path, table, kv_type);
  std::vector<float> logits;
  for (size_t sequence : {size_t{0}, size_t{1}}) {
    const std::vector<int32_t>& ids = golden.tokens[sequence];
    std::vector<std::vector<int32_t>> passes = {{ids.begin(), ids.begin() + 40}};
    for (size_t i = 40; i < 48; ++i) passes.push_back({ids[i]});
    passes.push_back({ids.begin() + 48, ids.begin() + 53});
    for (const std::vector<int32_t>& pass : passes) {
      const std::vector<float> some = model.Append(sequence, pass);
      logits.insert(logits.end(), some.begin(), some.end());
    }
  }
  return logits;
}

// Where values are rounded to a grid (the f16 of the cache, the int8 of activations), the last bit
// of a float decides between neighbours, so two correct tables differ by about as much as one that
// rounds differs from one that does not. So the GPU is held against `ref` without any such
// rounding: it may be as far from it as the CPU's table is that rounds the same values. And its
// most probable token is ref's wherever the margin exceeds twice the largest distance that it may
// have.
void ExpectAsGoodAsTheCpu(const GoldenModel& golden, const std::string& quantization,
                          const OpTable& cpu_table) {
  const ScratchDirectory folder;
  const std::string path = testing::ConvertGolden(golden, quantization, folder / "model.sluice");
  const std::vector<float> exact = AllLogits(path, kRefTable, KvType::kF32, golden);
  const std::vector<float> cpu = AllLogits(path, cpu_table, KvType::kF16, golden);
  const std::vector<float> gpu = AllLogits(path, test::EmulatedGpu::table(), KvType::kF16, golden);
  const LogitsDistance of_cpu = DistanceOf(cpu, exact);
  const LogitsDistance of_gpu = DistanceOf(gpu, exact);
  const std::string name = golden.name + " " + quantization;
  EXPECT_TRUE(of_gpu.root_mean_square <= 1.25 * of_cpu.root_mean_square)
      << name << ": " << of_gpu.root_mean_square << ", the CPU's is " << of_cpu.root_mean_square;
  EXPECT_TRUE(of_gpu.largest <= 2 * of_cpu.largest)
      << name << ": " << of_gpu.largest << ", the CPU's is " << of_cpu.largest;
  const auto vocab = static_cast<size_t>(golden.vocab);
  size_t compared = 0;
  for (size_t t = 0; t < exact.size() / vocab; ++t) {
    std::vector<float> sorted(exact.begin() + static_cast<ptrdiff_t>(t * vocab),
                              exact.begin() + static_cast<ptrdiff_t>((t + 1) * vocab));
    std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
    if (!(sorted[0] - sorted[1] > 4 * of_cpu.largest)) continue;
    const auto best = [&](const std::vector<float>& logits) {
      const auto begin = logits.begin() + static_cast<ptrdiff_t>(t * vocab);
      return std::max_element(begin, begin + static_cast<ptrdiff_t>(vocab)) - begin;
    };
    EXPECT_EQ(best(gpu), best(exact)) << name << " token " << t;
    ++compared;
  }
  ::testing::Test::RecordProperty(
      name, fmt::format("{:.2e} of {:.2e} rms, {:.2e} of {:.2e} largest, {} tokens",
                        of_gpu.root_mean_square, of_cpu.root_mean_square, of_gpu.largest,
                        of_cpu.largest, compared));
  if (quantization == "keep" && &cpu_table == &kRefTable) {
    EXPECT_GT(compared, exact.size() / vocab / 2);
  }
}

class CudaForward : public ::testing::TestWithParam<std::string> {};

TEST_P(CudaForward, FloatWeights) {
  ExpectAsGoodAsTheCpu(testing::LoadGolden(GetParam()), "keep", kRefTable);
}

TEST_P(CudaForward, Int4Weights) {
  // `ref` does not quantize activations; the fastest table follows the same contract as the GPU.
  const OpTable* table = AvailableTables().back();
  if (table == &kRefTable) GTEST_SKIP() << "this processor runs ref alone";
  ExpectAsGoodAsTheCpu(testing::LoadGolden(GetParam()), "int4", *table);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaForward,
                         ::testing::Values("mha", "gqa", "mqa", "bias_linear", "head_dim"),
                         [](const auto& info) { return info.param; });

// Q4_K, Q5_K, Q6_K, Q5_0 and Q5_1 as they are in the file.
TEST(CudaForward, TypesOfGguf) {
  const OpTable* table = AvailableTables().back();
  if (table == &kRefTable) GTEST_SKIP() << "this processor runs ref alone";
  ExpectAsGoodAsTheCpu(testing::LoadGolden("gguf/kquants"), "keep", *table);
}

TEST(CudaForward, EveryArchitecture) {
  for (const std::string& name : testing::ArchitectureGoldens()) {
    SCOPED_TRACE(name);
    ExpectAsGoodAsTheCpu(testing::LoadGolden(name), "keep", kRefTable);
  }
}

}  // namespace
}  // namespace sluice
