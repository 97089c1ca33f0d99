// Anonymous memory for resident weights.
#ifndef SLUICE_OFFLOAD_HOST_ARENA_H_
#define SLUICE_OFFLOAD_HOST_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/status.h"

namespace sluice {

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
  explicit HostArena(std::span<std::byte> bytes) : bytes_(bytes) {}
  std::span<std::byte> bytes_;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_HOST_ARENA_H_
