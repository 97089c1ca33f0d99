// Whole models through the CUDA operations, emulated, with weights in the GPU's layout.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/sluice_file.h"
#include "kernels/cuda/launchers.h"
#include "kernels/select.h"
#include "loaders/architecture.h"
#include "offload/device_store.h"
#include "runtime/cuda_layout.h"
#include "runtime/forward.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/fake_device.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using testing::GoldenModel;

constexpr int64_t kContext = 96;

std::unique_ptr<WeightStore> OpenMapped(const std::shared_ptr<const SluiceFile>& file) {
  Result<std::unique_ptr<WeightStore>> store = OpenMappedStore(file);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return std::move(*store);
}

// A model with everything that a pass needs; on the host if `table` is the CPU's, else on a device
// whose memory the host cannot touch.
class Model {
 public:
  Model(const std::string& path, const OpTable& table, KvType kv_type) : team_(1) {
    file_ = *SluiceFile::Open(path);
    store_ = OpenMapped(file_);
    Compute compute(&table);
    if (table.on_device) {
      gpu_.emplace(&device_);
      Result<std::unique_ptr<WeightStore>> store = OpenDeviceStore(
          std::move(store_), file_, &device_, {DeviceKind::kCuda, 0}, CudaLayout(), 2, nullptr);
      EXPECT_TRUE(store.ok()) << store.status().message();
      store_ = std::move(*store);
      stream_ = std::move(*device_.CreateStream());
      compute = Compute(&table, &device_, &stream_);
    }
    description_ = *DescribeModel(file_->config());
    cache_ = std::move(
        *KvCache::Create(description_.layer_states, kv_type, 64, compute.device, compute.stream));
    Result<std::unique_ptr<Forward>> forward =
        Forward::Create(file_->config(), description_, store_.get(), compute, cache_.get(), &team_,
                        kContext, kContext);
    EXPECT_TRUE(forward.ok()) << forward.status().message();
    forward_ = std::move(*forward);
  }
  ~Model() {
    for (BlockTable& table : tables_) cache_->Truncate(&table, 0);
  }

  int64_t vocab() const { return file_->config().vocab_size; }

  // Appends tokens to sequence 0 or 1 in one pass; the logits of all of them.
  std::vector<float> Append(size_t sequence, const std::vector<int32_t>& ids) {
    BlockTable& table = tables_[sequence];
    auto& length = lengths_[sequence];
    const auto count = static_cast<int64_t>(ids.size());
    EXPECT_TRUE(cache_->Reserve(&table, length + count, length).ok());
    Batch batch;
    batch.ids = ids;
    for (int64_t i = 0; i < count; ++i) {
      batch.positions.push_back(static_cast<int32_t>(length + i));
      batch.slots.push_back(KvCache::Slot(table, length + i));
      batch.lengths.push_back(length + i + 1);
      batch.block_tables.push_back(table.blocks.data());
      batch.wanted.push_back(i);
    }
    length += count;
    std::vector<float> logits(static_cast<size_t>(count * vocab()));
    Status status = forward_->Run(batch, nullptr);
    EXPECT_TRUE(status.ok()) << status.message();
    for (int64_t first = 0; first < count; first += kLogitRows) {
      status = forward_->Logits(first, std::min(kLogitRows, count - first),
                                logits.data() + first * vocab());
      EXPECT_TRUE(status.ok()) << status.message();
    }
    return logits;
  }

 private:
  ThreadTeam team_;
  std::shared_ptr<const SluiceFile> file_;
  test::FakeDevice device_;
  std::optional<test::EmulatedGpu> gpu_;
  std::unique_ptr<WeightStore> store_;
  ModelDescription description_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Forward> forward_;
  DeviceStream stream_;  // ends first: its work uses what is above
  BlockTable tables_[2];
  int64_t lengths_[2] = {0, 0};
};

// Teacher-forced: 40 tokens in one pass, then some one by one, then a few together; two sequences.
std::vector<float> AllLogits(const std::string& path, const OpTable& table, KvType kv_type,
                             const GoldenModel& golden) {
  Model model(path, table, kv_type);
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

struct Distance {
  double root_mean_square = 0;
  double largest = 0;
};

Distance DistanceOf(const std::vector<float>& a, const std::vector<float>& b) {
  Distance distance;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    if (!(difference <= distance.largest)) distance.largest = difference;
    distance.root_mean_square += difference * difference;
  }
  distance.root_mean_square = std::sqrt(distance.root_mean_square / static_cast<double>(a.size()));
  return distance;
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
  const Distance of_cpu = DistanceOf(cpu, exact);
  const Distance of_gpu = DistanceOf(gpu, exact);
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
