#include "offload/device.h"

#include <algorithm>

#include "formats/checked.h"

namespace sluice {

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      space_(other.space_),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(space_, other.space_);
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) device_->Free(data_, size_bytes_, space_);
}

DeviceEvent::DeviceEvent(DeviceEvent&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      handle_(std::exchange(other.handle_, nullptr)) {}

DeviceEvent& DeviceEvent::operator=(DeviceEvent&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  return *this;
}

DeviceEvent::~DeviceEvent() {
  if (handle_ != nullptr) device_->EndEvent(handle_);
}

Result<bool> DeviceEvent::Done() const { return device_->Done(handle_); }
Status DeviceEvent::Synchronize() const { return device_->Synchronize(handle_); }

Result<double> DeviceEvent::SecondsSince(const DeviceEvent& earlier) const {
  return device_->SecondsBetween(earlier.handle_, handle_);
}

DeviceGraph::DeviceGraph(DeviceGraph&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      handle_(std::exchange(other.handle_, nullptr)) {}

DeviceGraph& DeviceGraph::operator=(DeviceGraph&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  return *this;
}

DeviceGraph::~DeviceGraph() {
  if (handle_ != nullptr) device_->EndGraph(handle_);
}

DeviceStream::DeviceStream(DeviceStream&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      handle_(std::exchange(other.handle_, nullptr)) {}

DeviceStream& DeviceStream::operator=(DeviceStream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(handle_, other.handle_);
  return *this;
}

DeviceStream::~DeviceStream() {
  if (handle_ != nullptr) device_->EndStream(handle_);
}

Status DeviceStream::Copy(void* to, const void* from, uint64_t size_bytes,
                          CopyDirection direction) {
  if (size_bytes == 0) return Status();
  return device_->Copy(handle_, to, from, size_bytes, direction);
}

Status DeviceStream::CopyRows(void* to, const void* from, uint64_t pitch_bytes, uint64_t row_bytes,
                              uint64_t rows) {
  if (row_bytes == 0 || rows == 0) return Status();
  return device_->CopyRows(handle_, to, from, pitch_bytes, row_bytes, rows);
}

Status DeviceStream::Fill(void* to, uint8_t value, uint64_t size_bytes) {
  if (size_bytes == 0) return Status();
  return device_->Fill(handle_, to, value, size_bytes);
}

Status DeviceStream::Record(const DeviceEvent& event) {
  return device_->Record(handle_, event.handle());
}

Status DeviceStream::Wait(const DeviceEvent& event) {
  return device_->Wait(handle_, event.handle());
}

Status DeviceStream::BeginCapture() { return device_->BeginCapture(handle_); }

Result<DeviceGraph> DeviceStream::EndCapture() {
  const Result<CUgraphExec_st*> graph = device_->EndCapture(handle_);
  if (!graph.ok()) return graph.status();
  return DeviceGraph(device_, *graph);
}

Status DeviceStream::Launch(const DeviceGraph& graph) {
  return device_->Launch(handle_, graph.handle());
}

Status DeviceStream::Synchronize() { return device_->Synchronize(handle_); }

Status Device::CountTaken(uint64_t size_bytes) {
  const uint64_t taken = allocated_bytes_.fetch_add(InUnits(size_bytes));
  uint64_t all = 0;
  if (CheckedAdd(taken, InUnits(size_bytes), &all) && CheckedAdd(all, own_bytes(), &all) &&
      all <= limit_bytes_) {
    return Status();
  }
  allocated_bytes_ -= InUnits(size_bytes);
  return Status(ErrorCode::kOutOfMemory,
                name() + ": " + std::to_string(size_bytes) + " bytes beside " +
                    std::to_string(taken) + " and its own " + std::to_string(own_bytes()) +
                    " are more than the " + std::to_string(limit_bytes_) + " allowed");
}

Result<DeviceBuffer> Device::Allocate(uint64_t size_bytes, MemorySpace space) {
  if (size_bytes == 0) return DeviceBuffer();
  if (space == MemorySpace::kDevice) {
    if (Status s = CountTaken(size_bytes); !s.ok()) return s;
  }
  const Result<std::byte*> data = AllocateBytes(size_bytes, space);
  if (!data.ok()) {
    if (space == MemorySpace::kDevice) allocated_bytes_ -= InUnits(size_bytes);
    return data.status();
  }
  return DeviceBuffer(this, space, *data, size_bytes);
}

void Device::Free(std::byte* data, uint64_t size_bytes, MemorySpace space) {
  FreeBytes(data, size_bytes, space);
  if (space == MemorySpace::kDevice) allocated_bytes_ -= InUnits(size_bytes);
}

uint64_t Device::room_bytes() const {
  uint64_t taken = 0;
  const uint64_t limit = limit_bytes_;
  return CheckedAdd(allocated_bytes_.load(), own_bytes(), &taken) ? limit - std::min(limit, taken)
                                                                  : 0;
}

Status Device::BeginCapture(CUstream_st*) {
  return Status(ErrorCode::kUnsupported, name() + " does not record work");
}

Result<CUgraphExec_st*> Device::EndCapture(CUstream_st*) {
  return Status(ErrorCode::kUnsupported, name() + " does not record work");
}

Status Device::Launch(CUstream_st*, CUgraphExec_st*) {
  return Status(ErrorCode::kUnsupported, name() + " does not record work");
}

uint64_t Device::InUnits(uint64_t size_bytes) const {
  uint64_t rounded = 0;
  return CheckedRoundUp(size_bytes, unit_bytes(), &rounded) ? rounded : UINT64_MAX;
}

Result<DeviceStream> Device::CreateStream() {
  const Result<CUstream_st*> handle = MakeStream();
  if (!handle.ok()) return handle.status();
  return DeviceStream(this, *handle);
}

Result<DeviceEvent> Device::CreateEvent() {
  const Result<CUevent_st*> handle = MakeEvent();
  if (!handle.ok()) return handle.status();
  return DeviceEvent(this, *handle);
}

#ifndef SLUICE_HAS_CUDA
Result<CudaGpu> FindCudaGpu(int) {
  return Status(ErrorCode::kUnsupported, "this build has no CUDA");
}

Result<std::unique_ptr<Device>> OpenCudaDevice(int, Status (*)()) {
  return Status(ErrorCode::kUnsupported, "this build has no CUDA");
}

const char* CudaBuildDescription() { return "none"; }
#endif

}  // namespace sluice
