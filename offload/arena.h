// Memory that knows where it lies: on a device, or on the host where there is none.
#ifndef SLUICE_OFFLOAD_ARENA_H_
#define SLUICE_OFFLOAD_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "formats/status.h"
#include "offload/device.h"
#include "offload/host_arena.h"

namespace sluice {

// Move-only; not initialized on a device, zero on the host.
class Arena {
 public:
  Arena() = default;

  // For what computes: memory of the device; without one (null) of the host, whose pages count when
  // they are first written. Errors: kOutOfMemory, those of the device.
  static Result<Arena> Allocate(Device* device, uint64_t size_bytes);
  // For what is copied to and from the device by its own engines: pinned memory of the host.
  static Result<Arena> AllocateStaging(Device* device, uint64_t size_bytes);

  std::byte* data() const;
  uint64_t size_bytes() const;
  // The host must not touch the bytes: copies on a stream do.
  bool on_device() const { return on_device_; }

 private:
  std::optional<HostArena> host_;
  DeviceBuffer buffer_;
  bool on_device_ = false;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_ARENA_H_
