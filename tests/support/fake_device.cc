#include "tests/support/fake_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace sluice::test {

namespace {

// Of a new allocation: all of what tests of small models use, but not of the tens of MiB that a
// library may have beside it, whose pages would cost each access of a kernel.
constexpr uint64_t kSpoiledBytes = uint64_t{8} << 20;

}  // namespace

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
  const uint64_t used = held_bytes_ + faults_.own_bytes + graph_held_bytes_;
  return DeviceMemory{faults_.memory_bytes - std::min(used, faults_.memory_bytes),
                      faults_.memory_bytes};
}

void FakeDevice::Open(int change) {
  const bool was_open = open_ > 0;
  open_ += change;
  if (was_open == (open_ > 0)) return;
  for (const auto& [data, mapping] : memory_) {
    mprotect(mapping.begin, mapping.size_bytes, open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
}

bool FakeDevice::HasStream(CUstream_st* stream) const { return streams_.contains(stream); }

bool FakeDevice::Holds(const void* data, uint64_t size_bytes) const {
  const auto* begin = static_cast<const std::byte*>(data);
  auto after = sizes_.upper_bound(const_cast<std::byte*>(begin));
  if (after == sizes_.begin()) return false;
  const auto& [allocation, allocation_bytes] = *std::prev(after);
  const auto offset = static_cast<uint64_t>(begin - allocation);
  return offset <= allocation_bytes && size_bytes <= allocation_bytes - offset;
}

Result<std::byte*> FakeDevice::AllocateBytes(uint64_t size_bytes, MemorySpace space) {
  if (Status s = Call("allocation"); !s.ok()) return s;
  const bool on_device = space == MemorySpace::kDevice;
  const uint64_t left = faults_.memory_bytes - std::min(faults_.memory_bytes, held_bytes_);
  if (allocations_++ == faults_.fail_allocation || (on_device && size_bytes > left)) {
    return Status(ErrorCode::kOutOfMemory, "fake: " + std::to_string(size_bytes) + " bytes");
  }
  ++live_objects_;
  if (!on_device) {
    auto* data = static_cast<std::byte*>(std::malloc(size_bytes));
    std::memset(data, 0xff, size_bytes);
    return data;
  }
  // It ends where a page ends, as far as its alignment lets it.
  constexpr uint64_t kAlignment = 256;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t aligned = (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
  const uint64_t inside = (aligned + page - 1) / page * page;
  void* mapped = mmap(nullptr, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) std::abort();
  std::byte* begin = static_cast<std::byte*>(mapped) + page;
  mprotect(begin, inside, PROT_READ | PROT_WRITE);
  std::memset(begin, 0xff, std::min(inside, kSpoiledBytes));
  if (open_ == 0) mprotect(begin, inside, PROT_NONE);
  std::byte* data = begin + inside - aligned;
  memory_[data] = {begin, inside};
  sizes_[data] = size_bytes;
  held_bytes_ += size_bytes;
  peak_bytes_ = std::max(peak_bytes_, held_bytes_);
  return data;
}

void FakeDevice::FreeBytes(std::byte* data, uint64_t size_bytes, MemorySpace space) {
  --live_objects_;
  if (space != MemorySpace::kDevice) return std::free(data);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const Mapping mapping = memory_.at(data);
  munmap(mapping.begin - page, mapping.size_bytes + 2 * page);
  memory_.erase(data);
  sizes_.erase(data);
  held_bytes_ -= size_bytes;
}

Result<CUstream_st*> FakeDevice::MakeStream() {
  if (Status s = Call("stream"); !s.ok()) return s;
  ++live_objects_;
  auto* const stream = reinterpret_cast<CUstream_st*>(new Stream);
  streams_.insert(stream);
  return stream;
}

void FakeDevice::EndStream(CUstream_st* stream) {
  // A lost device drops its work.
  if (!lost()) CatchUp(stream);
  --live_objects_;
  streams_.erase(stream);
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

Status FakeDevice::CheckCopy(const void* to, const void* from, uint64_t size_bytes,
                             CopyDirection direction) const {
  const bool to_device = direction != CopyDirection::kDeviceToHost;
  const bool from_device = direction != CopyDirection::kHostToDevice;
  const auto* const target = static_cast<const std::byte*>(to);
  const auto* const source = static_cast<const std::byte*>(from);
  if (target < source + size_bytes && source < target + size_bytes) {
    return Status(ErrorCode::kIo, "fake: a copy's sides overlap");
  }
  if (Holds(to, size_bytes) == to_device && Holds(from, size_bytes) == from_device) return Status();
  return Status(ErrorCode::kIo, "fake: a copy's sides are not where its direction says");
}

Status FakeDevice::Copy(CUstream_st* stream, void* to, const void* from, uint64_t size_bytes,
                        CopyDirection direction) {
  if (Status s = Call("copy"); !s.ok()) return s;
  if (Status s = CheckCopy(to, from, size_bytes, direction); !s.ok()) return s;
  if (direction == CopyDirection::kDeviceToHost) bytes_to_host_ += size_bytes;
  Give(stream, [=, this] {
    const Access access(this);
    std::memmove(to, from, size_bytes);
  });
  return Status();
}

Status FakeDevice::CopyRows(CUstream_st* stream, void* to, const void* from, uint64_t pitch_bytes,
                            uint64_t row_bytes, uint64_t rows) {
  if (Status s = Call("copy of rows"); !s.ok()) return s;
  const auto target = [=](uint64_t i) { return static_cast<std::byte*>(to) + i * pitch_bytes; };
  const auto source = [=](uint64_t i) {
    return static_cast<const std::byte*>(from) + i * pitch_bytes;
  };
  // Row i of one side and row j of the other are `distance` less (j - i) pitches apart.
  const auto distance = static_cast<uint64_t>(std::abs(target(0) - source(0)));
  const uint64_t whole = distance / pitch_bytes;
  const uint64_t rest = distance % pitch_bytes;
  const bool meet =
      (whole < rows && rest < row_bytes) || (whole + 1 < rows && pitch_bytes - rest < row_bytes);
  if (row_bytes > pitch_bytes || meet) return Status(ErrorCode::kIo, "fake: rows overlap");
  for (uint64_t i = 0; i < rows; ++i) {
    if (Status s = CheckCopy(target(i), source(i), row_bytes, CopyDirection::kDeviceToDevice);
        !s.ok()) {
      return s;
    }
  }
  Give(stream, [=, this] {
    const Access access(this);
    for (uint64_t i = 0; i < rows; ++i) std::memcpy(target(i), source(i), row_bytes);
  });
  return Status();
}

Status FakeDevice::Fill(CUstream_st* stream, void* to, uint8_t value, uint64_t size_bytes) {
  if (Status s = Call("fill"); !s.ok()) return s;
  if (!Holds(to, size_bytes)) return Status(ErrorCode::kIo, "fake: only device memory is filled");
  Give(stream, [=, this] {
    const Access access(this);
    std::memset(to, value, size_bytes);
  });
  return Status();
}

Status FakeDevice::Record(CUstream_st* stream, CUevent_st* event) {
  if (Status s = CallOutsideRecording(stream, "record"); !s.ok()) return s;
  auto* const recorded = reinterpret_cast<Event*>(event);
  recorded->stream = reinterpret_cast<Stream*>(stream);
  ++recorded->recorded;
  recorded->stream->work.push_back([=] { ++recorded->done; });
  return Status();
}

Status FakeDevice::Wait(CUstream_st* stream, CUevent_st* event) {
  if (Status s = CallOutsideRecording(stream, "wait"); !s.ok()) return s;
  auto* const awaited = reinterpret_cast<Event*>(event);
  const int64_t until = awaited->recorded;
  reinterpret_cast<Stream*>(stream)->work.push_back([=, this] { CatchUp(awaited, until); });
  return Status();
}

void FakeDevice::CatchUp(CUstream_st* stream) {
  auto* const behind = reinterpret_cast<Stream*>(stream);
  // A kernel of a recording asks for the work before it, which is done; what is queued is later.
  if (behind->busy) return;
  behind->busy = true;
  while (!behind->work.empty()) {
    const std::function<void()> next = std::move(behind->work.front());
    behind->work.pop_front();
    next();
  }
  behind->busy = false;
}

void FakeDevice::CatchUp(Event* event, int64_t until) {
  if (event->done >= until) return;
  Stream* const behind = event->stream;
  const bool was_busy = std::exchange(behind->busy, true);
  while (event->done < until && !behind->work.empty()) {
    const std::function<void()> next = std::move(behind->work.front());
    behind->work.pop_front();
    next();
  }
  behind->busy = was_busy;
}

Status FakeDevice::Synchronize(CUstream_st* stream) {
  if (Status s = CallOutsideRecording(stream, "synchronize"); !s.ok()) return s;
  CatchUp(stream);
  return Status();
}

bool FakeDevice::recording(CUstream_st* stream) const {
  return HasStream(stream) && reinterpret_cast<Stream*>(stream)->recording.has_value();
}

void FakeDevice::Record(CUstream_st* stream, std::function<void()> kernel) {
  reinterpret_cast<Stream*>(stream)->recording->push_back(std::move(kernel));
}

void FakeDevice::Give(CUstream_st* stream, std::function<void()> work) {
  auto* const given = reinterpret_cast<Stream*>(stream);
  (given->recording ? *given->recording : given->work).push_back(std::move(work));
}

Status FakeDevice::CallOutsideRecording(CUstream_st* stream, const char* what) {
  if (Status s = Call(what); !s.ok()) return s;
  if (!recording(stream)) return Status();
  return Status(ErrorCode::kIo, std::string("fake: not while it records: ") + what);
}

Status FakeDevice::BeginCapture(CUstream_st* stream) {
  if (Status s = CallOutsideRecording(stream, "recording"); !s.ok()) return s;
  reinterpret_cast<Stream*>(stream)->recording.emplace();
  return Status();
}

Result<CUgraphExec_st*> FakeDevice::EndCapture(CUstream_st* stream) {
  std::optional<Work> work = std::exchange(reinterpret_cast<Stream*>(stream)->recording, {});
  if (Status s = Call("the end of a recording"); !s.ok()) return s;
  if (!work) return Status(ErrorCode::kIo, "fake: the stream does not record");
  if (graphs_++ == faults_.fail_graph) return Status(ErrorCode::kOutOfMemory, "fake: a recording");
  ++live_objects_;
  graph_held_bytes_ += faults_.graph_bytes;
  return reinterpret_cast<CUgraphExec_st*>(
      new Graph{std::make_shared<const Work>(std::move(*work))});
}

void FakeDevice::EndGraph(CUgraphExec_st* graph) {
  --live_objects_;
  graph_held_bytes_ -= faults_.graph_bytes;
  delete reinterpret_cast<Graph*>(graph);
}

Status FakeDevice::Launch(CUstream_st* stream, CUgraphExec_st* graph) {
  if (Status s = CallOutsideRecording(stream, "starting a recording"); !s.ok()) return s;
  ++graph_launches_;
  // Its end does not end what was started.
  Give(stream, [work = reinterpret_cast<Graph*>(graph)->work] {
    for (const std::function<void()>& next : *work) next();
  });
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
