#include "tests/support/cuda_emulation/model_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "loaders/architecture.h"
#include "offload/device_store.h"
#include "runtime/cuda_layout.h"

namespace sluice::test {
namespace {

constexpr int64_t kCacheBlocks = 24;  // of 16 tokens: both sequences, and what a tree copies

}  // namespace

ModelRunner::ModelRunner(const std::string& path, const OpTable& table, KvType kv_type, int threads)
    : team_(threads) {
  file_ = *SluiceFile::Open(path);
  store_ = std::move(*OpenMappedStore(file_));
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
  cache_ = std::move(*KvCache::Create(description_.layer_states, kv_type, kCacheBlocks,
                                      compute.device, compute.stream));
  Result<std::unique_ptr<Forward>> forward =
      Forward::Create(file_->config(), description_, store_.get(), compute, cache_.get(), &team_,
                      kContext, kContext);
  EXPECT_TRUE(forward.ok()) << forward.status().message();
  forward_ = std::move(*forward);
}

ModelRunner::~ModelRunner() {
  for (BlockTable& table : tables_) cache_->Truncate(&table, 0);
}

void ModelRunner::Add(size_t sequence, const std::vector<int32_t>& ids, Batch* batch) {
  DraftTree chain = {ids, {}};
  for (size_t i = 0; i < ids.size(); ++i) chain.parents.push_back(static_cast<int32_t>(i) - 1);
  AddTree(sequence, chain, batch);
  lengths_[sequence] += static_cast<int64_t>(ids.size());
}

void ModelRunner::AddTree(size_t sequence, const DraftTree& tree, Batch* batch) {
  BlockTable& table = tables_[sequence];
  const int64_t length = lengths_[sequence];
  ASSERT_TRUE(cache_->Reserve(&table, length + static_cast<int64_t>(tree.ids.size()), length).ok());
  const Status status = AppendTree(tree, table, length, batch);
  ASSERT_TRUE(status.ok()) << status.message();
}

std::vector<float> ModelRunner::Run(Batch batch) {
  FillTrees(&batch);
  Status status = forward_->Run(batch, nullptr);
  EXPECT_TRUE(status.ok()) << status.message();
  const auto count = static_cast<int64_t>(batch.wanted.size());
  std::vector<float> logits(static_cast<size_t>(count * vocab()));
  for (int64_t first = 0; first < count; first += kLogitRows) {
    status = forward_->Logits(first, std::min(kLogitRows, count - first),
                              logits.data() + first * vocab());
    EXPECT_TRUE(status.ok()) << status.message();
  }
  return logits;
}

std::vector<float> ModelRunner::Append(size_t sequence, const std::vector<int32_t>& ids) {
  Batch batch;
  Add(sequence, ids, &batch);
  return Run(std::move(batch));
}

std::vector<float> ModelRunner::Verify(size_t sequence, const DraftTree& tree) {
  Batch batch;
  AddTree(sequence, tree, &batch);
  return Run(std::move(batch));
}

void ModelRunner::Keep(size_t sequence, const DraftTree& tree, int64_t node) {
  const std::vector<int64_t> path = PathTo(tree, node);
  const Status status = cache_->KeepPath(&tables_[sequence], lengths_[sequence], path);
  ASSERT_TRUE(status.ok()) << status.message();
  lengths_[sequence] += static_cast<int64_t>(path.size());
}

LogitsDistance DistanceOf(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  LogitsDistance distance;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::fabs(double{a[i]} - double{b[i]});
    distance.largest =
        std::max(distance.largest,
                 std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
    distance.root_mean_square += difference * difference;
  }
  distance.root_mean_square = std::sqrt(distance.root_mean_square / static_cast<double>(a.size()));
  return distance;
}

}  // namespace sluice::test
