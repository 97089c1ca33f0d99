#include "tests/support/cuda_emulation/emulated_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "offload/device.h"
#include "tests/support/fake_device.h"

namespace sluice {
namespace {

// The checks that stand for a GPU in the tests of whole models.
TEST(EmulatedGpu, FindsWhatAGpuWouldTrapOn) {
  test::FakeDevice device;
  test::EmulatedGpu gpu(&device);
  const Result<DeviceBuffer> memory = device.Allocate(64 * sizeof(float));
  Result<DeviceStream> stream = device.CreateStream();
  auto* x = reinterpret_cast<float*>(memory->data());
  std::vector<float> host(64);
  const auto softcap = [&](float* data, int64_t count, CUstream_st* on) {
    test::EmulatedGpu::table().softcap({data, 1.0f, 0, count}, on);
    return gpu.TakeProblems();
  };
  EXPECT_THAT(softcap(x, 64, stream->handle()), testing::IsEmpty());
  EXPECT_EQ(gpu.launches(), 1);
  EXPECT_THAT(softcap(x, 65, stream->handle()),
              testing::ElementsAre("softcap: x is not in its memory"));
  EXPECT_THAT(softcap(host.data(), 64, stream->handle()),
              testing::ElementsAre("softcap: x is not in its memory"));
  EXPECT_THAT(softcap(x, 64, nullptr),
              testing::ElementsAre("softcap: runs on no stream of the device"));
  EXPECT_EQ(gpu.launches(), 1);
}

TEST(EmulatedGpu, KernelsComeAfterTheCopiesOfTheirStream) {
  test::FakeDevice device;
  const test::EmulatedGpu gpu(&device);
  const Result<DeviceBuffer> memory = device.Allocate(4 * sizeof(float));
  Result<DeviceStream> stream = device.CreateStream();
  auto* x = reinterpret_cast<float*>(memory->data());
  const float values[4] = {0, 1, -2, 100};
  float back[4] = {};
  ASSERT_TRUE(stream->Copy(x, values, sizeof(values), CopyDirection::kHostToDevice).ok());
  test::EmulatedGpu::table().scale_add({x, 4, 2.0f, nullptr, 0, 4, 0, 1}, stream->handle());
  ASSERT_TRUE(stream->Copy(back, x, sizeof(back), CopyDirection::kDeviceToHost).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_THAT(back, testing::ElementsAre(0, 2, -4, 200));
}

}  // namespace
}  // namespace sluice
