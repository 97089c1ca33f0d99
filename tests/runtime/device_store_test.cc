// Weights on a device: what arrives there, and what is left when it cannot.
#include "offload/device_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "formats/sluice_file.h"
#include "offload/weight_store.h"
#include "runtime/cuda_layout.h"
#include "tests/support/fake_device.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

std::unique_ptr<WeightStore> OpenMapped(const std::shared_ptr<const SluiceFile>& file) {
  Result<std::unique_ptr<WeightStore>> store = OpenMappedStore(file);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return std::move(*store);
}

class DeviceStoreFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string name = testing::HuggingFaceGoldens().front();
    path_ = testing::ConvertGolden(testing::LoadGolden(name), "int4", folder_ / "model.sluice");
    file_ = *SluiceFile::Open(path_);
  }

  Result<std::unique_ptr<WeightStore>> Open(Device* device, const LoadProgress& progress = {}) {
    return OpenDeviceStore(OpenMapped(file_), file_, device, {DeviceKind::kCuda, 0}, CudaLayout(),
                           2, progress);
  }

  ScratchDirectory folder_;
  std::string path_;
  std::shared_ptr<const SluiceFile> file_;
};

TEST_F(DeviceStoreFaults, LateCopiesArriveBeforeTheStoreIsThere) {
  test::FakeDevice device;
  Result<std::unique_ptr<WeightStore>> store = Open(&device);
  ASSERT_TRUE(store.ok()) << store.status().message();
  const CudaLayout layout;
  const std::unique_ptr<WeightStore> mapped = OpenMapped(file_);
  int64_t compared = 0;
  for (GroupId g = 0; g < file_->groups().size(); ++g) {
    const GroupEntry& group = file_->groups()[g];
    if (group.kind == GroupKind::kEmbedding) continue;
    const WeightLease lease = *(*store)->Acquire(g);
    const WeightLease source = *mapped->Acquire(g);
    for (TensorId t = group.first_tensor; t < group.first_tensor + group.tensor_count; ++t) {
      const TileLayout& tiles = file_->tensors()[t].layout;
      // All pieces of the source are one part of the device's.
      ASSERT_EQ(lease.Parts(t).size(), 1u);
      const WeightPart& part = lease.Parts(t)[0];
      EXPECT_EQ(part.device, (DeviceId{DeviceKind::kCuda, 0}));
      EXPECT_EQ(part.num_tiles, tiles.num_tiles);
      const std::byte* actual = *lease.Take(part);
      for (const WeightPart& piece : source.Parts(t)) {
        std::vector<std::byte> expected(*layout.SizeBytes(tiles, piece.num_tiles));
        layout.Arrange(tiles, *source.Take(piece), piece.num_tiles, expected);
        ASSERT_TRUE(device.Holds(actual, expected.size()));
        const test::FakeDevice::Access access(&device);
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), actual));
        actual += expected.size();
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 10);
}

TEST_F(DeviceStoreFaults, EveryAllocationThatFindsNoMemoryIsAnErrorThatLeavesNothing) {
  test::FakeDevice counting;
  ASSERT_TRUE(Open(&counting).ok());
  ASSERT_EQ(counting.allocations(), 3);
  for (int64_t i = 0; i < counting.allocations(); ++i) {
    test::FakeDevice device({.fail_allocation = i});
    EXPECT_EQ(Open(&device).status().code(), ErrorCode::kOutOfMemory);
    EXPECT_EQ(device.live_objects(), 0);
  }
}

TEST_F(DeviceStoreFaults, ADeviceThatIsLostAtAnyCallIsAnErrorThatLeavesNothing) {
  test::FakeDevice counting;
  ASSERT_TRUE(Open(&counting).ok());
  for (int64_t i = 0; i < counting.calls(); ++i) {
    test::FakeDevice device({.lost_at_call = i});
    EXPECT_EQ(Open(&device).status().code(), ErrorCode::kIo) << i;
    EXPECT_EQ(device.live_objects(), 0);
  }
}

TEST_F(DeviceStoreFaults, LoadingEndsWhenItIsCancelled) {
  test::FakeDevice device;
  int calls = 0;
  const Result<std::unique_ptr<WeightStore>> store =
      Open(&device, [&](uint64_t, uint64_t) { return ++calls < 3; });
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.status().code(), ErrorCode::kCancelled);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(device.live_objects(), 0);
}

}  // namespace
}  // namespace sluice
