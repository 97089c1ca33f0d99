#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "formats/checked.h"
#include "offload/device.h"

namespace sluice {
namespace {

constexpr uint64_t kAlignment = 256;

using Clock = std::chrono::steady_clock;

// What the handles point to here.
struct HostStream {};
struct HostEvent {
  Clock::time_point time;
};

HostEvent* Event(CUevent_st* handle) { return reinterpret_cast<HostEvent*>(handle); }

class HostDevice final : public Device {
 public:
  explicit HostDevice(uint64_t memory_bytes) : memory_bytes_(memory_bytes) {}

  std::string name() const override { return "host"; }

  Result<DeviceMemory> Memory() override {
    const std::lock_guard lock(mutex_);
    return DeviceMemory{memory_bytes_ - used_bytes_, memory_bytes_};
  }

 protected:
  Result<std::byte*> AllocateBytes(uint64_t size_bytes, MemorySpace space) override {
    uint64_t rounded = 0;
    void* data = nullptr;
    {
      const std::lock_guard lock(mutex_);
      const bool fits =
          space == MemorySpace::kPinnedHost || size_bytes <= memory_bytes_ - used_bytes_;
      if (fits && CheckedRoundUp(size_bytes, kAlignment, &rounded)) {
        data = std::aligned_alloc(kAlignment, rounded);
      }
      if (data != nullptr && space == MemorySpace::kDevice) used_bytes_ += size_bytes;
    }
    if (data == nullptr) {
      return Status(ErrorCode::kOutOfMemory,
                    "host: " + std::to_string(size_bytes) + " bytes of device memory");
    }
    return static_cast<std::byte*>(data);
  }

  void FreeBytes(std::byte* data, uint64_t size_bytes, MemorySpace space) override {
    std::free(data);
    const std::lock_guard lock(mutex_);
    if (space == MemorySpace::kDevice) used_bytes_ -= size_bytes;
  }

  Result<CUstream_st*> MakeStream() override {
    return reinterpret_cast<CUstream_st*>(new HostStream);
  }
  void EndStream(CUstream_st* stream) override { delete reinterpret_cast<HostStream*>(stream); }
  Result<CUevent_st*> MakeEvent() override { return reinterpret_cast<CUevent_st*>(new HostEvent); }
  void EndEvent(CUevent_st* event) override { delete Event(event); }

  Status Copy(CUstream_st*, void* to, const void* from, uint64_t size_bytes,
              CopyDirection) override {
    std::memmove(to, from, size_bytes);
    return Status();
  }
  Status CopyRows(CUstream_st*, void* to, const void* from, uint64_t pitch_bytes,
                  uint64_t row_bytes, uint64_t rows) override {
    for (uint64_t i = 0; i < rows; ++i) {
      std::memcpy(static_cast<std::byte*>(to) + i * pitch_bytes,
                  static_cast<const std::byte*>(from) + i * pitch_bytes, row_bytes);
    }
    return Status();
  }
  Status Fill(CUstream_st*, void* to, uint8_t value, uint64_t size_bytes) override {
    std::memset(to, value, size_bytes);
    return Status();
  }
  Status Record(CUstream_st*, CUevent_st* event) override {
    Event(event)->time = Clock::now();
    return Status();
  }
  Status Wait(CUstream_st*, CUevent_st*) override { return Status(); }
  Status Synchronize(CUstream_st*) override { return Status(); }
  Result<bool> Done(CUevent_st*) override { return true; }
  Status Synchronize(CUevent_st*) override { return Status(); }
  Result<double> SecondsBetween(CUevent_st* earlier, CUevent_st* later) override {
    return std::chrono::duration<double>(Event(later)->time - Event(earlier)->time).count();
  }

 private:
  std::mutex mutex_;
  const uint64_t memory_bytes_;
  uint64_t used_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Device> OpenHostDevice(uint64_t memory_bytes) {
  return std::make_unique<HostDevice>(memory_bytes);
}

}  // namespace sluice
