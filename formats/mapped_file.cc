#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace sluice {
namespace {

constexpr uint64_t kSmallestDirectBytes = 256 << 10;

std::string ErrnoText(int error) {
  return fmt::format("{} (errno {})", std::generic_category().message(error), error);
}

Status CheckRange(const ByteSource& source, uint64_t offset_bytes, uint64_t length_bytes) {
  if (offset_bytes <= source.size_bytes() && length_bytes <= source.size_bytes() - offset_bytes) {
    return {};
  }
  return {ErrorCode::kTruncated,
          fmt::format("{}: {} bytes wanted at offset {}, but the file ends at {}", source.name(),
                      length_bytes, offset_bytes, source.size_bytes())};
}

}  // namespace

Status MemoryBytes::ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const {
  if (Status s = CheckRange(*this, offset_bytes, out.size()); !s.ok()) return s;
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset_bytes, out.size());
  return {};
}

Result<std::unique_ptr<ReadOnlyFile>> ReadOnlyFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; regular files ignore it.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int error = errno;
    const bool absent = error == ENOENT || error == ENOTDIR;
    return Status(absent ? ErrorCode::kNotFound : ErrorCode::kIo,
                  fmt::format("{}: cannot open: {}", path, ErrnoText(error)));
  }
  std::unique_ptr<ReadOnlyFile> file(new ReadOnlyFile(descriptor, 0, path));
  struct stat info {};
  if (fstat(descriptor, &info) != 0) {
    return Status(ErrorCode::kIo, fmt::format("{}: fstat failed: {}", path, ErrnoText(errno)));
  }
  if (!S_ISREG(info.st_mode)) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{}: not a regular file", path));
  }
  file->size_bytes_ = static_cast<uint64_t>(info.st_size);
  return file;
}

ReadOnlyFile::~ReadOnlyFile() {
  close(descriptor_);
  if (direct_descriptor_ >= 0) close(direct_descriptor_);
}

// By 64 pages all over the file.
bool ReadOnlyFile::IsNearlyCached() const {
  constexpr uint64_t kSamples = 64;
  Result<FileMapping> mapping = FileMapping::Map(*this);
  if (!mapping.ok() || mapping->bytes().empty()) return false;
  const std::span<const std::byte> bytes = mapping->bytes();
  uint64_t cached = 0;
  for (uint64_t i = 0; i < kSamples; ++i) {
    const uint64_t page = bytes.size() / kSamples * i / kDirectAlignment * kDirectAlignment;
    unsigned char resident = 0;
    const void* address = bytes.data() + page;
    if (mincore(const_cast<void*>(address), 1, &resident) != 0) return false;
    cached += resident & 1;
  }
  return cached >= kSamples * 9 / 10;
}

void ReadOnlyFile::OpenDirect() const {
  if (IsNearlyCached()) return;
  // The open file again, whatever its path names by now.
  const std::string self = fmt::format("/proc/self/fd/{}", descriptor_);
  direct_descriptor_ = open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  // The ends of ranges go through the cache; they need no reading ahead.
  if (direct_descriptor_ >= 0) posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
}

Status ReadOnlyFile::ReadOnce(uint64_t offset_bytes, std::span<std::byte> out) const {
  if (Status s = CheckRange(*this, offset_bytes, out.size()); !s.ok()) return s;
  const uint64_t head = (kDirectAlignment - offset_bytes % kDirectAlignment) % kDirectAlignment;
  const bool fits = (reinterpret_cast<uintptr_t>(out.data()) + head) % kDirectAlignment == 0;
  if (!fits || out.size() < kSmallestDirectBytes) return ReadAt(offset_bytes, out);
  std::call_once(direct_opened_, [this] { OpenDirect(); });
  if (direct_descriptor_ < 0) return ReadAt(offset_bytes, out);
  uint64_t done = head;
  const uint64_t end = head + (out.size() - head) / kDirectAlignment * kDirectAlignment;
  while (done < end) {
    const ssize_t got = pread(direct_descriptor_, out.data() + done, end - done,
                              static_cast<off_t>(offset_bytes + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // the way through the cache will say what is wrong, if anything
    done += static_cast<uint64_t>(got) / kDirectAlignment * kDirectAlignment;
    if (static_cast<uint64_t>(got) % kDirectAlignment != 0) break;
  }
  if (Status s = ReadAt(offset_bytes, out.first(head)); !s.ok()) return s;
  return ReadAt(offset_bytes + done, out.subspan(done));
}

Status ReadOnlyFile::ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const {
  if (Status s = CheckRange(*this, offset_bytes, out.size()); !s.ok()) return s;
  static_assert(sizeof(off_t) == 8);
  constexpr size_t kMaxPerCall = size_t{1} << 30;  // Linux transfers at most 2^31 - 4096 at once
  while (!out.empty()) {
    const ssize_t got = pread(descriptor_, out.data(), std::min(out.size(), kMaxPerCall),
                              static_cast<off_t>(offset_bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return {ErrorCode::kIo, fmt::format("{}: read of {} bytes at offset {} failed: {}", path_,
                                          out.size(), offset_bytes, ErrnoText(errno))};
    }
    if (got == 0) {
      return {ErrorCode::kTruncated,
              fmt::format("{}: ends at offset {}, {} bytes short: it was cut after it was opened",
                          path_, offset_bytes, out.size())};
    }
    offset_bytes += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<size_t>(got));
  }
  return {};
}

Result<FileMapping> FileMapping::Map(const ReadOnlyFile& file) {
  if (file.size_bytes() == 0) return FileMapping({});
  void* address =
      mmap(nullptr, file.size_bytes(), PROT_READ, MAP_SHARED, file.descriptor(), /*offset=*/0);
  if (address == MAP_FAILED) {
    return Status(ErrorCode::kIo, fmt::format("{}: mmap of {} bytes failed: {}", file.name(),
                                              file.size_bytes(), ErrnoText(errno)));
  }
  return FileMapping({static_cast<const std::byte*>(address), file.size_bytes()});
}

FileMapping::FileMapping(FileMapping&& other) noexcept
    : bytes_(std::exchange(other.bytes_, std::span<const std::byte>())) {}

FileMapping& FileMapping::operator=(FileMapping&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

FileMapping::~FileMapping() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes) {
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  const uint64_t size_bytes = (*file)->size_bytes();
  if (size_bytes > max_bytes) {
    return Status(ErrorCode::kLimitExceeded, fmt::format("{}: {} bytes long, at most {} are read",
                                                         path, size_bytes, max_bytes));
  }
  std::string text(size_bytes, '\0');
  if (Status s = (*file)->ReadAt(0, std::as_writable_bytes(std::span(text))); !s.ok()) return s;
  return text;
}

}  // namespace sluice
