#include "offload/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/fake_device.h"

namespace sluice {
namespace {

using test::DeviceFaults;
using test::FakeDevice;
using testing::HasSubstr;

// Sends bytes to the device on one stream, on to another place there on a second one, and back.
Result<std::vector<uint8_t>> RoundTrip(Device* device, const std::vector<uint8_t>& bytes) {
  Result<DeviceBuffer> pinned = device->Allocate(bytes.size(), MemorySpace::kPinnedHost);
  if (!pinned.ok()) return pinned.status();
  Result<DeviceBuffer> first = device->Allocate(bytes.size());
  if (!first.ok()) return first.status();
  Result<DeviceBuffer> second = device->Allocate(bytes.size());
  if (!second.ok()) return second.status();
  Result<DeviceStream> upload = device->CreateStream();
  if (!upload.ok()) return upload.status();
  Result<DeviceStream> compute = device->CreateStream();
  if (!compute.ok()) return compute.status();
  Result<DeviceEvent> arrived = device->CreateEvent();
  if (!arrived.ok()) return arrived.status();

  std::memcpy(pinned->data(), bytes.data(), bytes.size());
  if (Status s =
          upload->Copy(first->data(), pinned->data(), bytes.size(), CopyDirection::kHostToDevice);
      !s.ok()) {
    return s;
  }
  if (Status s = upload->Record(*arrived); !s.ok()) return s;
  if (Status s = compute->Wait(*arrived); !s.ok()) return s;
  if (Status s = compute->Copy(second->data(), first->data(), bytes.size(),
                               CopyDirection::kDeviceToDevice);
      !s.ok()) {
    return s;
  }
  if (Status s = compute->Fill(second->data(), 7, 1); !s.ok()) return s;
  std::vector<uint8_t> back(bytes.size());
  if (Status s =
          compute->Copy(back.data(), second->data(), bytes.size(), CopyDirection::kDeviceToHost);
      !s.ok()) {
    return s;
  }
  if (Status s = compute->Synchronize(); !s.ok()) return s;
  const Result<bool> done = arrived->Done();
  if (!done.ok()) return done.status();
  if (!*done) return Status(ErrorCode::kInternal, "the event is not done");
  return back;
}

std::vector<uint8_t> Pattern(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 31 + i / 256);
  return bytes;
}

void ExpectRoundTrip(Device* device) {
  for (size_t size : {size_t{1}, size_t{255}, size_t{1} << 20}) {
    std::vector<uint8_t> expected = Pattern(size);
    const Result<std::vector<uint8_t>> back = RoundTrip(device, expected);
    ASSERT_TRUE(back.ok()) << back.status().message();
    expected[0] = 7;
    EXPECT_EQ(*back, expected);
  }
}

// Rows of a matrix to others of it, as the KV cache moves slots of a block.
void ExpectRowsAreCopied(Device* device) {
  constexpr size_t kPitch = 64, kBytes = 16, kRows = 5, kFrom = 40, kTo = 8;
  std::vector<uint8_t> expected = Pattern(kPitch * kRows);
  std::vector<uint8_t> back(expected.size());
  Result<DeviceStream> stream = device->CreateStream();
  Result<DeviceBuffer> buffer = device->Allocate(expected.size());
  ASSERT_TRUE(stream.ok() && buffer.ok());
  std::byte* const data = buffer->data();
  ASSERT_TRUE(
      stream->Copy(data, expected.data(), expected.size(), CopyDirection::kHostToDevice).ok());
  const Status status = stream->CopyRows(data + kTo, data + kFrom, kPitch, kBytes, kRows);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_TRUE(stream->CopyRows(data, data + 1, kPitch, kBytes, 0).ok());
  ASSERT_TRUE(stream->Copy(back.data(), data, back.size(), CopyDirection::kDeviceToHost).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  for (size_t row = 0; row < kRows; ++row) {
    std::copy_n(expected.data() + row * kPitch + kFrom, kBytes,
                expected.data() + row * kPitch + kTo);
  }
  EXPECT_EQ(back, expected);
}

TEST(Device, BytesGoRoundOnTheHost) {
  const std::unique_ptr<Device> device = OpenHostDevice(64 << 20);
  ExpectRoundTrip(device.get());
  ExpectRowsAreCopied(device.get());
}

TEST(Device, BytesGoRoundWhereWorkIsAsLateAsItMayBe) {
  FakeDevice device;
  ExpectRoundTrip(&device);
  ExpectRowsAreCopied(&device);
  EXPECT_EQ(device.live_objects(), 0);
}

TEST(Device, RowsThatOverlapAreRefused) {
  FakeDevice device;
  const Result<DeviceBuffer> buffer = device.Allocate(64);
  Result<DeviceStream> stream = device.CreateStream();
  std::byte* const data = buffer->data();
  EXPECT_TRUE(stream->CopyRows(data, data + 8, 16, 8, 4).ok());
  EXPECT_FALSE(stream->CopyRows(data, data + 7, 16, 8, 4).ok());
  EXPECT_FALSE(stream->CopyRows(data, data + 9, 16, 8, 3).ok());
  EXPECT_FALSE(stream->CopyRows(data, data + 8, 16, 8, 5).ok());  // beyond the buffer
}

TEST(Device, BytesGoRoundOnAGpuWhereThereIsOne) {
  Result<std::unique_ptr<Device>> device = OpenCudaDevice(0);
  if (!device.ok()) {
    EXPECT_EQ(device.status().code(), ErrorCode::kUnsupported) << device.status().message();
    GTEST_SKIP() << device.status().message();
  }
  ExpectRoundTrip(device->get());
  ExpectRowsAreCopied(device->get());
}

// Records a copy and a fill, and starts them twice with other bytes in their places.
Status Replay(Device* device, std::vector<uint8_t>* back) {
  Result<DeviceStream> stream = device->CreateStream();
  if (!stream.ok()) return stream.status();
  Result<DeviceBuffer> from = device->Allocate(16);
  Result<DeviceBuffer> to = device->Allocate(16);
  if (!from.ok() || !to.ok()) return Status(ErrorCode::kOutOfMemory, "buffers");
  if (Status s = stream->Fill(to->data(), 1, 16); !s.ok()) return s;
  if (Status s = stream->Synchronize(); !s.ok()) return s;
  if (Status s = stream->BeginCapture(); !s.ok()) return s;
  Status asked = stream->Copy(to->data(), from->data(), 16, CopyDirection::kDeviceToDevice);
  if (asked.ok()) asked = stream->Fill(to->data() + 2, 9, 3);
  const Result<DeviceGraph> graph = stream->EndCapture();
  if (!asked.ok()) return asked;
  if (!graph.ok()) return graph.status();
  back->assign(48, 0);
  const auto fetch = [&](size_t at) {
    return stream->Copy(back->data() + at, to->data(), 16, CopyDirection::kDeviceToHost);
  };
  if (Status s = fetch(0); !s.ok()) return s;  // recorded, not done
  for (uint8_t value : {uint8_t{3}, uint8_t{4}}) {
    if (Status s = stream->Fill(from->data(), value, 16); !s.ok()) return s;
    if (Status s = stream->Launch(*graph); !s.ok()) return s;
    if (Status s = fetch(value == 3 ? 16 : 32); !s.ok()) return s;
  }
  return stream->Synchronize();
}

std::vector<uint8_t> Replayed() {
  std::vector<uint8_t> bytes(16, 1);
  for (uint8_t value : {uint8_t{3}, uint8_t{4}}) {
    std::vector<uint8_t> pass(16, value);
    std::fill_n(pass.begin() + 2, 3, uint8_t{9});
    bytes.insert(bytes.end(), pass.begin(), pass.end());
  }
  return bytes;
}

TEST(Device, ARecordingDoesItsWorkWheneverItIsStarted) {
  FakeDevice device;
  std::vector<uint8_t> back;
  const Status status = Replay(&device, &back);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(back, Replayed());
  EXPECT_EQ(device.graphs(), 1);
  EXPECT_EQ(device.graph_launches(), 2);
  EXPECT_EQ(device.live_objects(), 0);
}

TEST(Device, AGpuRecordsWhereThereIsOne) {
  Result<std::unique_ptr<Device>> device = OpenCudaDevice(0);
  if (!device.ok()) GTEST_SKIP() << device.status().message();
  std::vector<uint8_t> back;
  const Status status = Replay(device->get(), &back);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(back, Replayed());
}

TEST(Device, TheHostDoesNotRecord) {
  const std::unique_ptr<Device> device = OpenHostDevice(1 << 20);
  std::vector<uint8_t> back;
  EXPECT_EQ(Replay(device.get(), &back).code(), ErrorCode::kUnsupported);
}

TEST(Device, NothingButWorkMayBeAskedOfAStreamThatRecords) {
  FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  Result<DeviceEvent> event = device.CreateEvent();
  ASSERT_TRUE(stream.ok() && event.ok());
  EXPECT_FALSE(stream->EndCapture().ok());
  ASSERT_TRUE(stream->BeginCapture().ok());
  EXPECT_FALSE(stream->BeginCapture().ok());
  EXPECT_FALSE(stream->Synchronize().ok());
  EXPECT_FALSE(stream->Record(*event).ok());
  EXPECT_FALSE(stream->Wait(*event).ok());
  EXPECT_TRUE(stream->EndCapture().ok());
  EXPECT_TRUE(stream->Synchronize().ok());
}

TEST(Device, ItsRoomIsWhatItsBoundLeaves) {
  FakeDevice device({.own_bytes = 100});
  device.set_limit_bytes(1000);
  EXPECT_EQ(device.room_bytes(), 900u);
  const Result<DeviceBuffer> buffer = device.Allocate(300);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(device.room_bytes(), 600u);
  device.set_limit_bytes(200);
  EXPECT_EQ(device.room_bytes(), 0u);
}

TEST(Device, AGpuThatIsNotThereIsUnsupportedWhateverTheBuild) {
  for (int index : {-1, 1000}) {
    const Result<std::unique_ptr<Device>> device = OpenCudaDevice(index);
    ASSERT_FALSE(device.ok());
    EXPECT_EQ(device.status().code(), ErrorCode::kUnsupported);
    EXPECT_THAT(device.status().message(),
                testing::AnyOf(HasSubstr("GPU"), HasSubstr("no CUDA"), HasSubstr("driver")));
    const ErrorCode found = FindCudaGpu(index).status().code();
    EXPECT_TRUE(found == ErrorCode::kNotFound || found == ErrorCode::kUnsupported) << index;
  }
}

// Where there is a GPU: asked without a context, it is the one that opens.
TEST(Device, TheGpuThatIsFoundIsTheOneThatOpens) {
  const Result<CudaGpu> gpu = FindCudaGpu(kUsedGpu);
  const Result<std::unique_ptr<Device>> device = OpenCudaDevice(kUsedGpu);
  if (!gpu.ok()) {
    EXPECT_FALSE(device.ok());
    return;
  }
  EXPECT_EQ(gpu->uuid.size(), 36u);
  EXPECT_THAT(gpu->pci_address, HasSubstr(":"));
  EXPECT_GT(gpu->memory_bytes, 0u);
  if (device.ok()) {
    EXPECT_EQ((*device)->name(), gpu->name);
  }
}

uint32_t Peek(FakeDevice* device, const DeviceBuffer& buffer) {
  const FakeDevice::Access access(device);
  uint32_t value = 0;
  std::memcpy(&value, buffer.data(), sizeof(value));
  return value;
}

constexpr uint32_t kFresh = 0xffffffffu;  // what the fake device's memory holds at first

TEST(Device, WorkIsNotDoneBeforeSomethingWaitsForIt) {
  FakeDevice device;
  Result<DeviceStream> stream = device.CreateStream();
  Result<DeviceEvent> event = device.CreateEvent();
  uint32_t from = 5;
  const Result<DeviceBuffer> to = device.Allocate(4);
  ASSERT_TRUE(event->Done().value());
  ASSERT_TRUE(stream->Copy(to->data(), &from, 4, CopyDirection::kHostToDevice).ok());
  ASSERT_TRUE(stream->Record(*event).ok());
  EXPECT_EQ(Peek(&device, *to), kFresh);
  EXPECT_FALSE(event->Done().value());
  from = 6;  // too early: the copy reads it later
  ASSERT_TRUE(event->Synchronize().ok());
  EXPECT_EQ(Peek(&device, *to), 6u);
  EXPECT_TRUE(event->Done().value());
}

TEST(Device, AStreamWaitsForAnotherOnlyWhereItWasTold) {
  FakeDevice device;
  const uint32_t from = 5;
  const Result<DeviceBuffer> middle = device.Allocate(4);
  const Result<DeviceBuffer> to = device.Allocate(4);
  Result<DeviceStream> upload = device.CreateStream();
  Result<DeviceStream> compute = device.CreateStream();
  Result<DeviceEvent> event = device.CreateEvent();
  ASSERT_TRUE(upload->Copy(middle->data(), &from, 4, CopyDirection::kHostToDevice).ok());
  ASSERT_TRUE(upload->Record(*event).ok());
  const auto copy = [&] {
    return compute->Copy(to->data(), middle->data(), 4, CopyDirection::kDeviceToDevice);
  };
  ASSERT_TRUE(copy().ok());
  ASSERT_TRUE(compute->Synchronize().ok());
  EXPECT_EQ(Peek(&device, *to), kFresh);  // nobody waited for the event
  ASSERT_TRUE(compute->Wait(*event).ok());
  ASSERT_TRUE(copy().ok());
  ASSERT_TRUE(compute->Synchronize().ok());
  EXPECT_EQ(Peek(&device, *to), 5u);
}

TEST(Device, TheFakeRefusesCopiesWhoseSidesAreNotWhereTheirDirectionSays) {
  FakeDevice device;
  uint32_t host[2] = {1, 2};
  const Result<DeviceBuffer> memory = device.Allocate(8);
  Result<DeviceStream> stream = device.CreateStream();
  const auto copy = [&](void* to, const void* from, uint64_t size_bytes, CopyDirection direction) {
    return stream->Copy(to, from, size_bytes, direction).code();
  };
  std::byte* data = memory->data();
  EXPECT_EQ(copy(data, host, 8, CopyDirection::kHostToDevice), ErrorCode::kOk);
  EXPECT_EQ(copy(data, host, 8, CopyDirection::kDeviceToHost), ErrorCode::kIo);
  EXPECT_EQ(copy(data, host, 8, CopyDirection::kDeviceToDevice), ErrorCode::kIo);
  EXPECT_EQ(copy(host, data, 8, CopyDirection::kHostToDevice), ErrorCode::kIo);
  EXPECT_EQ(copy(data + 4, host, 8, CopyDirection::kHostToDevice), ErrorCode::kIo);  // too long
  EXPECT_EQ(stream->Fill(host, 0, 8).code(), ErrorCode::kIo);
}

TEST(DeviceDeathTest, TheHostCannotTouchTheFakesMemory) {
  FakeDevice device;
  const Result<DeviceBuffer> memory = device.Allocate(5);
  volatile std::byte* data = memory->data();
  EXPECT_DEATH((void)*data, "");
  EXPECT_DEATH(*data = std::byte{1}, "");
}

TEST(Device, AnAllocationBeyondTheLimitFindsNoMemoryAndTheLimitCountsWhatTheDeviceTookForItself) {
  FakeDevice device({.own_bytes = 100});
  device.set_limit_bytes(1000);
  Result<DeviceBuffer> first = device.Allocate(600);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(device.allocated_bytes(), 600u);
  const Status status = device.Allocate(301).status();
  EXPECT_EQ(status.code(), ErrorCode::kOutOfMemory);
  EXPECT_THAT(status.message(), HasSubstr("301 bytes"));
  EXPECT_EQ(device.Allocate(UINT64_MAX).status().code(), ErrorCode::kOutOfMemory);
  EXPECT_TRUE(device.Allocate(5000, MemorySpace::kPinnedHost).ok());
  EXPECT_TRUE(device.Allocate(300).ok());  // and given back at once
  *first = DeviceBuffer();
  EXPECT_EQ(device.allocated_bytes(), 0u);
  EXPECT_TRUE(device.Allocate(900).ok());
}

TEST(Device, EveryAllocationThatFindsNoMemoryIsAnErrorAndGivesBackTheRest) {
  FakeDevice counting;
  ASSERT_TRUE(RoundTrip(&counting, Pattern(100)).ok());
  ASSERT_EQ(counting.allocations(), 3);
  for (int64_t i = 0; i < counting.allocations(); ++i) {
    FakeDevice device({.fail_allocation = i});
    const Result<std::vector<uint8_t>> back = RoundTrip(&device, Pattern(100));
    ASSERT_FALSE(back.ok()) << i;
    EXPECT_EQ(back.status().code(), ErrorCode::kOutOfMemory);
    EXPECT_EQ(device.live_objects(), 0);
  }
}

TEST(Device, EveryCallOnALostDeviceIsAnErrorAndGivesBackTheRest) {
  FakeDevice counting;
  ASSERT_TRUE(RoundTrip(&counting, Pattern(100)).ok());
  ASSERT_GE(counting.calls(), 13);
  for (int64_t i = 0; i < counting.calls(); ++i) {
    FakeDevice device({.lost_at_call = i});
    const Result<std::vector<uint8_t>> back = RoundTrip(&device, Pattern(100));
    ASSERT_FALSE(back.ok()) << i;
    EXPECT_EQ(back.status().code(), ErrorCode::kIo);
    EXPECT_EQ(device.live_objects(), 0);
  }
}

TEST(Device, TheHostsMemoryEndsWhereItWasSaid) {
  const std::unique_ptr<Device> device = OpenHostDevice(1000);
  Result<DeviceBuffer> first = device->Allocate(600);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(device->Memory()->free_bytes, 400u);
  EXPECT_EQ(device->Allocate(401).status().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(device->Allocate(UINT64_MAX).status().code(), ErrorCode::kOutOfMemory);
  EXPECT_EQ(device->Allocate(UINT64_MAX, MemorySpace::kPinnedHost).status().code(),
            ErrorCode::kOutOfMemory);
  {
    const Result<DeviceBuffer> second = device->Allocate(400);
    ASSERT_TRUE(second.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(second->data()) % 256, 0u);
    EXPECT_EQ(device->Memory()->free_bytes, 0u);
  }
  DeviceBuffer moved = std::move(*first);
  EXPECT_EQ(device->Memory()->free_bytes, 400u);
  moved = DeviceBuffer();
  EXPECT_EQ(first->data(), nullptr);
  EXPECT_EQ(device->Memory()->free_bytes, 1000u);
}

TEST(Device, NothingOfNoBytesIsAllowed) {
  FakeDevice device({.fail_allocation = 0});
  const Result<DeviceBuffer> empty = device.Allocate(0);
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->size_bytes(), 0u);
  Result<DeviceStream> stream = device.CreateStream();
  EXPECT_TRUE(stream->Copy(nullptr, nullptr, 0, CopyDirection::kDeviceToDevice).ok());
}

TEST(Device, AnEventOfTheHostTellsTimes) {
  const std::unique_ptr<Device> device = OpenHostDevice(1000);
  Result<DeviceStream> stream = device->CreateStream();
  const Result<DeviceEvent> begin = device->CreateEvent();
  const Result<DeviceEvent> end = device->CreateEvent();
  ASSERT_TRUE(stream->Record(*begin).ok());
  ASSERT_TRUE(stream->Record(*end).ok());
  EXPECT_GE(end->SecondsSince(*begin).value(), 0);
  EXPECT_LT(end->SecondsSince(*begin).value(), 60);
}

}  // namespace
}  // namespace sluice
