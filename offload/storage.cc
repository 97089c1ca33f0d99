#include "offload/storage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "offload/storage_file.h"

namespace sluice {
namespace {

// Some file systems accept O_DIRECT at open and refuse it at the first read.
bool DirectReadWorks(int descriptor) {
  void* block = nullptr;
  if (posix_memalign(&block, StorageFile::kDirectAlignment, StorageFile::kDirectAlignment) != 0) {
    return false;
  }
  const ssize_t got = pread(descriptor, block, StorageFile::kDirectAlignment, 0);
  std::free(block);
  return got >= 0;
}

}  // namespace

Result<StorageFile> StorageFile::Open(const std::string& path, bool direct) {
  if (direct) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (descriptor >= 0) {
      if (DirectReadWorks(descriptor)) return StorageFile(descriptor, true);
      close(descriptor);
    }
  }
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return Status(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                  fmt::format("{}: {}", path, std::strerror(errno)));
  }
  return StorageFile(descriptor, false);
}

StorageFile::StorageFile(StorageFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), direct_(other.direct_) {}

StorageFile& StorageFile::operator=(StorageFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(direct_, other.direct_);
  return *this;
}

StorageFile::~StorageFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

Result<std::unique_ptr<Storage>> OpenStorage(const std::string& path,
                                             const StorageOptions& options) {
  Result<StorageFile> file = StorageFile::Open(path, options.direct);
  if (!file.ok()) return file.status();
  if (options.method != IoMethod::kPread) {
    Result<std::unique_ptr<Storage>> uring = MakeUringStorage(&*file, options);
    if (uring.ok() || options.method == IoMethod::kUring) return uring;
  }
  return MakePreadStorage(std::move(*file), options);
}

}  // namespace sluice
