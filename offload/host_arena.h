// Anonymous memory for resident weights.
#ifndef SLUICE_OFFLOAD_HOST_ARENA_H_
#define SLUICE_OFFLOAD_HOST_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/status.h"

namespace sluice {

// Where arenas get their memory: the seam by which a test makes a chosen allocation fail.
// Thread-safe.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  // Zeroed and page-aligned, or null with errno.
  virtual void* Map(uint64_t size_bytes);
  virtual void Unmap(void* memory, uint64_t size_bytes);
};

// All arenas that are made from now on take their memory there; null: from the system again. For
// tests. The source outlives its arenas.
void UseMemorySource(MemorySource* source);

// One page-aligned mapping, in 2 MiB pages where the system gives them (transparent huge pages are
// asked for, not required). Pages count against the process when they are first written.
class HostArena {
 public:
  // Errors: kOutOfMemory with the size and errno.
  static Result<HostArena> Allocate(uint64_t size_bytes);
  HostArena(HostArena&& other) noexcept;
  HostArena& operator=(HostArena&& other) noexcept;
  ~HostArena();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  HostArena(std::span<std::byte> bytes, MemorySource* source) : bytes_(bytes), source_(source) {}
  std::span<std::byte> bytes_;
  MemorySource* source_;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_HOST_ARENA_H_
