// Passes that a device records, and recordings of emulated operations.
#include "runtime/pass_graphs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/fake_device.h"

namespace sluice {
namespace {

using test::EmulatedGpu;
using test::FakeDevice;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(PassGraphs, OnlyDecodeStepsOfFewSequencesAreRecordable) {
  EXPECT_EQ(RecordableShape(1, 1, 1, 4096), (PassShape{1, 256}));
  EXPECT_EQ(RecordableShape(64, 1, 256, 4096), (PassShape{64, 256}));
  EXPECT_EQ(RecordableShape(2, 1, 257, 4096), (PassShape{2, 512}));
  EXPECT_EQ(RecordableShape(2, 1, 513, 4096), (PassShape{2, 1024}));
  EXPECT_EQ(RecordableShape(2, 1, 513, 600), (PassShape{2, 600}));
  EXPECT_EQ(RecordableShape(2, 1, 600, 600), (PassShape{2, 600}));
  EXPECT_EQ(RecordableShape(65, 1, 10, 4096), std::nullopt);
  EXPECT_EQ(RecordableShape(2, 2, 10, 4096), std::nullopt);
}

TEST(PassGraphs, TheOneThatWasNotUsedForLongestGoes) {
  FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  ASSERT_TRUE(stream.ok());
  {
    PassGraphs graphs(&device, &*stream);
    int64_t called = 0;
    const auto layers = [&] {
      ++called;
      return Status();
    };
    const auto run = [&](int64_t tokens) {
      for (int i = 0; i < 3; ++i) ASSERT_TRUE(graphs.Run({tokens, 256}, layers).ok());
    };
    const auto most = static_cast<int64_t>(PassGraphs::kMostGraphs);
    for (int64_t tokens = 1; tokens <= most; ++tokens) run(tokens);
    EXPECT_EQ(device.graphs(), most);
    EXPECT_EQ(device.live_objects(), most + 1);
    run(1);
    EXPECT_EQ(device.graphs(), most);
    run(most + 1);  // instead of 2
    EXPECT_EQ(device.live_objects(), most + 1);
    called = 0;
    run(1);
    EXPECT_EQ(called, 0);
    run(2);
    EXPECT_EQ(called, 2) << "once plainly, once to be recorded";
    EXPECT_EQ(device.graphs(), most + 2);
  }
}

TEST(PassGraphs, APassThatIsCancelledWhileItIsRecordedIsNotStarted) {
  FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  ASSERT_TRUE(stream.ok());
  PassGraphs graphs(&device, &*stream);
  Status status;
  const auto layers = [&] { return status; };
  ASSERT_TRUE(graphs.Run({1, 256}, layers).ok());
  status = Status(ErrorCode::kCancelled, "cancelled");
  EXPECT_EQ(graphs.Run({1, 256}, layers).code(), ErrorCode::kCancelled);
  EXPECT_EQ(device.graph_launches(), 0);
  status = Status();
  ASSERT_TRUE(graphs.Run({1, 256}, layers).ok());
  EXPECT_EQ(device.graph_launches(), 1);
}

// The emulation finds a recording that is started although what it works on has gone or grown.
TEST(EmulatedGpu, ARecordingMeetsWhatIsThereWhenItIsStarted) {
  FakeDevice device;
  EmulatedGpu gpu(&device);
  Result<DeviceStream> stream = device.CreateStream();
  Result<DeviceBuffer> buffer = device.Allocate(4 * sizeof(float));
  ASSERT_TRUE(stream.ok() && buffer.ok());
  auto* y = reinterpret_cast<float*>(buffer->data());
  std::vector<float> values = {1, 2, 3, 4};
  const auto size_bytes = values.size() * sizeof(float);
  ASSERT_TRUE(stream->Copy(y, values.data(), size_bytes, CopyDirection::kHostToDevice).ok());
  ASSERT_TRUE(stream->BeginCapture().ok());
  EmulatedGpu::table().scale_add({.y = y,
                                  .y_stride = 4,
                                  .scale = 2,
                                  .x = nullptr,
                                  .x_stride = 0,
                                  .width = 4,
                                  .token_begin = 0,
                                  .token_end = 1},
                                 stream->handle());
  const Result<DeviceGraph> graph = stream->EndCapture();
  ASSERT_TRUE(graph.ok());
  EXPECT_EQ(gpu.launches(), 0);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(stream->Launch(*graph).ok());
  ASSERT_TRUE(stream->Copy(values.data(), y, size_bytes, CopyDirection::kDeviceToHost).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_EQ(gpu.launches(), 3);
  EXPECT_EQ(values, (std::vector<float>{8, 16, 24, 32}));
  EXPECT_THAT(gpu.TakeProblems(), IsEmpty());

  *buffer = DeviceBuffer();
  ASSERT_TRUE(stream->Launch(*graph).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  EXPECT_THAT(gpu.TakeProblems(), ElementsAre(HasSubstr("scale_add: y is not in its")));
}

}  // namespace
}  // namespace sluice
