#include "offload/host_arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

namespace sluice {
namespace {

MemorySource system_source;
std::atomic<MemorySource*> current_source = &system_source;

}  // namespace

void* MemorySource::Map(uint64_t size_bytes) {
  void* memory = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

void MemorySource::Unmap(void* memory, uint64_t size_bytes) { munmap(memory, size_bytes); }

void UseMemorySource(MemorySource* source) {
  current_source = source == nullptr ? &system_source : source;
}

Result<HostArena> HostArena::Allocate(uint64_t size_bytes) {
  MemorySource* source = current_source;
  if (size_bytes == 0) return HostArena({}, source);
  void* memory = source->Map(size_bytes);
  if (memory == nullptr) {
    return Status(ErrorCode::kOutOfMemory,
                  fmt::format("memory of {} bytes: {}", size_bytes, std::strerror(errno)));
  }
  madvise(memory, size_bytes, MADV_HUGEPAGE);  // a refusal leaves small pages, which work too
  return HostArena({static_cast<std::byte*>(memory), size_bytes}, source);
}

HostArena::HostArena(HostArena&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), source_(other.source_) {}

HostArena& HostArena::operator=(HostArena&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(source_, other.source_);
  return *this;
}

HostArena::~HostArena() {
  if (!bytes_.empty()) source_->Unmap(bytes_.data(), bytes_.size());
}

}  // namespace sluice
