#include "tests/support/fake_device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sluice::test {

FakeDevice::~FakeDevice() {
  if (live_objects_ == 0) return;
  std::fprintf(stderr, "FakeDevice: %lld objects outlive it\n",
               static_cast<long long>(live_objects_));
  std::abort();
}

Status FakeDevice::Call(const char* what) {
  const int64_t call = calls_++;
  if (faults_.lost_at_call < 0 || call < faults_.lost_at_call) return Status();
  return Status(ErrorCode::kIo, std::string("fake: lost: ") + what);
}

Result<DeviceMemory> FakeDevice::Memory() {
  if (Status s = Call("memory"); !s.ok()) return s;
  return DeviceMemory{1u << 30, 1u << 30};
}

Result<std::byte*> FakeDevice::AllocateBytes(uint64_t size_bytes, MemorySpace) {
  if (Status s = Call("allocation"); !s.ok()) return s;
  if (allocations_++ == faults_.fail_allocation) {
    return Status(ErrorCode::kOutOfMemory, "fake: " + std::to_string(size_bytes) + " bytes");
  }
  auto* data = static_cast<std::byte*>(std::malloc(size_bytes));
  std::memset(data, 0xff, size_bytes);
  ++live_objects_;
  return data;
}

void FakeDevice::FreeBytes(std::byte* data, uint64_t, MemorySpace) {
  --live_objects_;
  std::free(data);
}

Result<CUstream_st*> FakeDevice::MakeStream() {
  if (Status s = Call("stream"); !s.ok()) return s;
  ++live_objects_;
  return reinterpret_cast<CUstream_st*>(new Stream);
}

void FakeDevice::EndStream(CUstream_st* stream) {
  // A lost device drops its work.
  if (!lost()) CatchUp(stream);
  --live_objects_;
  delete reinterpret_cast<Stream*>(stream);
}

Result<CUevent_st*> FakeDevice::MakeEvent() {
  if (Status s = Call("event"); !s.ok()) return s;
  ++live_objects_;
  return reinterpret_cast<CUevent_st*>(new Event);
}

void FakeDevice::EndEvent(CUevent_st* event) {
  auto* const ended = reinterpret_cast<Event*>(event);
  // Work that marks the event may still be queued.
  if (!lost() && ended->done < ended->recorded) CatchUp(ended, ended->recorded);
  --live_objects_;
  delete ended;
}

Status FakeDevice::Copy(CUstream_st* stream, void* to, const void* from, uint64_t size_bytes,
                        CopyDirection) {
  if (Status s = Call("copy"); !s.ok()) return s;
  reinterpret_cast<Stream*>(stream)->work.push_back([=] { std::memmove(to, from, size_bytes); });
  return Status();
}

Status FakeDevice::Fill(CUstream_st* stream, void* to, uint8_t value, uint64_t size_bytes) {
  if (Status s = Call("fill"); !s.ok()) return s;
  reinterpret_cast<Stream*>(stream)->work.push_back([=] { std::memset(to, value, size_bytes); });
  return Status();
}

Status FakeDevice::Record(CUstream_st* stream, CUevent_st* event) {
  if (Status s = Call("record"); !s.ok()) return s;
  auto* const recorded = reinterpret_cast<Event*>(event);
  recorded->stream = reinterpret_cast<Stream*>(stream);
  ++recorded->recorded;
  recorded->stream->work.push_back([=] { ++recorded->done; });
  return Status();
}

Status FakeDevice::Wait(CUstream_st* stream, CUevent_st* event) {
  if (Status s = Call("wait"); !s.ok()) return s;
  auto* const awaited = reinterpret_cast<Event*>(event);
  const int64_t until = awaited->recorded;
  reinterpret_cast<Stream*>(stream)->work.push_back([=, this] { CatchUp(awaited, until); });
  return Status();
}

void FakeDevice::CatchUp(CUstream_st* stream) {
  auto& work = reinterpret_cast<Stream*>(stream)->work;
  while (!work.empty()) {
    const std::function<void()> next = std::move(work.front());
    work.pop_front();
    next();
  }
}

void FakeDevice::CatchUp(Event* event, int64_t until) {
  while (event->done < until && !event->stream->work.empty()) {
    const std::function<void()> next = std::move(event->stream->work.front());
    event->stream->work.pop_front();
    next();
  }
}

Status FakeDevice::Synchronize(CUstream_st* stream) {
  if (Status s = Call("synchronize"); !s.ok()) return s;
  CatchUp(stream);
  return Status();
}

Result<bool> FakeDevice::Done(CUevent_st* event) {
  if (Status s = Call("query"); !s.ok()) return s;
  const auto* const asked = reinterpret_cast<Event*>(event);
  return asked->done == asked->recorded;
}

Status FakeDevice::Synchronize(CUevent_st* event) {
  if (Status s = Call("synchronize"); !s.ok()) return s;
  auto* const awaited = reinterpret_cast<Event*>(event);
  CatchUp(awaited, awaited->recorded);
  return Status();
}

Result<double> FakeDevice::SecondsBetween(CUevent_st*, CUevent_st*) {
  if (Status s = Call("time"); !s.ok()) return s;
  return 0.0;
}

}  // namespace sluice::test
