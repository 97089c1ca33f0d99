#include "offload/host_arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace sluice {

Result<HostArena> HostArena::Allocate(uint64_t size_bytes) {
  if (size_bytes == 0) return HostArena({});
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return Status(ErrorCode::kOutOfMemory, fmt::format("memory for {} bytes of weights: {}",
                                                       size_bytes, std::strerror(errno)));
  }
  madvise(memory, size_bytes, MADV_HUGEPAGE);  // a refusal leaves small pages, which work too
  return HostArena({static_cast<std::byte*>(memory), size_bytes});
}

HostArena::HostArena(HostArena&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

HostArena& HostArena::operator=(HostArena&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

HostArena::~HostArena() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace sluice
