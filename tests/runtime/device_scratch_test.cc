#include "runtime/device_scratch.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/support.h"
#include "tests/support/fake_device.h"

namespace sluice {
namespace {

TEST(DeviceScratch, TheCountersOfTheAttentionAreZeroBeforeItsFirstCall) {
  test::FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  DeviceScratchSizes sizes;
  sizes.max_tokens = 3;
  sizes.table_blocks = 40;
  sizes.attention_scratch = GpuAttentionScratch(3, 4, 64, 600);
  const Result<DeviceScratch> scratch = DeviceScratch::Create(&device, &*stream, sizes, {}, {});
  ASSERT_TRUE(scratch.ok()) << scratch.status().message();
  ASSERT_TRUE(stream->Synchronize().ok());
  const test::FakeDevice::Access access(&device);
  const auto* counters = reinterpret_cast<const int32_t*>(scratch->attention_scratch());
  EXPECT_TRUE(std::all_of(counters, counters + kGpuAttentionCounters,
                          [](int32_t counter) { return counter == 0; }));
}

TEST(DeviceScratch, AContextOfOnePartitionHasNoCounters) {
  test::FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  DeviceScratchSizes sizes;
  sizes.max_tokens = 3;
  sizes.table_blocks = 40;
  sizes.attention_scratch = GpuAttentionScratch(3, 4, 64, kGpuAttentionPartition);
  EXPECT_EQ(sizes.attention_scratch, 0);
  EXPECT_TRUE(DeviceScratch::Create(&device, &*stream, sizes, {}, {}).ok());
}

}  // namespace
}  // namespace sluice
