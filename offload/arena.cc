#include "offload/arena.h"

#include <utility>

namespace sluice {

Result<Arena> Arena::Allocate(Device* device, uint64_t size_bytes) {
  Arena arena;
  if (device == nullptr) {
    Result<HostArena> host = HostArena::Allocate(size_bytes);
    if (!host.ok()) return host.status();
    arena.host_ = std::move(*host);
    return arena;
  }
  Result<DeviceBuffer> buffer = device->Allocate(size_bytes);
  if (!buffer.ok()) return buffer.status();
  arena.buffer_ = std::move(*buffer);
  arena.on_device_ = true;
  return arena;
}

Result<Arena> Arena::AllocateStaging(Device* device, uint64_t size_bytes) {
  if (device == nullptr) return Allocate(nullptr, size_bytes);
  Result<DeviceBuffer> buffer = device->Allocate(size_bytes, MemorySpace::kPinnedHost);
  if (!buffer.ok()) return buffer.status();
  Arena arena;
  arena.buffer_ = std::move(*buffer);
  return arena;
}

std::byte* Arena::data() const { return host_ ? host_->bytes().data() : buffer_.data(); }

uint64_t Arena::size_bytes() const { return host_ ? host_->bytes().size() : buffer_.size_bytes(); }

}  // namespace sluice
