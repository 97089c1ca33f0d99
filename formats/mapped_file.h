// Read-only access to the bytes of a file, or of memory: what the parsers of headers read from.
#ifndef SLUICE_FORMATS_MAPPED_FILE_H_
#define SLUICE_FORMATS_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

// A sequence of bytes of known length that can be read at any offset. Thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size_bytes() const = 0;
  // For messages: a path.
  virtual const std::string& name() const = 0;
  // Fills all of `out` from `offset_bytes` on. Errors: kTruncated when the range passes the end,
  // kIo; both name the source and the offset.
  virtual Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const = 0;
  // The same, for much that is read once: may go past the page cache.
  virtual Status ReadOnce(uint64_t offset_bytes, std::span<std::byte> out) const {
    return ReadAt(offset_bytes, out);
  }
};

// Where ReadOnce can go past the page cache, address and offset have the same rest by this.
inline constexpr uint64_t kDirectAlignment = 4096;

// The files of one model.
using ByteSources = std::vector<std::unique_ptr<ByteSource>>;

// Bytes in memory, not owned.
class MemoryBytes : public ByteSource {
 public:
  explicit MemoryBytes(std::span<const std::byte> bytes, std::string name = "memory")
      : bytes_(bytes), name_(std::move(name)) {}
  uint64_t size_bytes() const override { return bytes_.size(); }
  const std::string& name() const override { return name_; }
  Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const override;

 private:
  std::span<const std::byte> bytes_;
  std::string name_;
};

// An open regular file. Reads use pread, so a file that shrinks after it was opened is an error
// value and not a signal.
class ReadOnlyFile : public ByteSource {
 public:
  // Errors: kNotFound, kIo (with the text of errno), kInvalidArgument (not a regular file).
  static Result<std::unique_ptr<ReadOnlyFile>> Open(const std::string& path);
  ~ReadOnlyFile() override;
  ReadOnlyFile(const ReadOnlyFile&) = delete;
  ReadOnlyFile& operator=(const ReadOnlyFile&) = delete;

  // As it was when the file was opened.
  uint64_t size_bytes() const override { return size_bytes_; }
  const std::string& name() const override { return path_; }
  // Continues after short reads and interrupts.
  Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const override;
  // Past the page cache (O_DIRECT), which saves a copy and leaves the cache to others, unless the
  // range is small or does not fit the address, nearly all of the file was cached when this was
  // called first, or the file system cannot.
  Status ReadOnce(uint64_t offset_bytes, std::span<std::byte> out) const override;
  // For fstat and mmap by the caller; stays owned by this object.
  int descriptor() const { return descriptor_; }

 private:
  ReadOnlyFile(int descriptor, uint64_t size_bytes, std::string path)
      : descriptor_(descriptor), size_bytes_(size_bytes), path_(std::move(path)) {}

  bool IsNearlyCached() const;
  void OpenDirect() const;

  int descriptor_;
  uint64_t size_bytes_;
  std::string path_;
  mutable std::once_flag direct_opened_;
  mutable int direct_descriptor_ = -1;
};

// A read-only shared mapping of a whole file. Touching a page beyond the end of a file that was
// truncated after mapping raises SIGBUS: nothing is parsed from a mapping; it is for bytes that
// were validated by reading, in files that the owner promises not to change.
class FileMapping {
 public:
  // The mapping outlives `file`. An empty file gives an empty mapping. Errors: kIo.
  static Result<FileMapping> Map(const ReadOnlyFile& file);
  FileMapping(FileMapping&& other) noexcept;
  FileMapping& operator=(FileMapping&& other) noexcept;
  ~FileMapping();

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit FileMapping(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

// The whole file as a string. Errors: as Open and ReadAt; kLimitExceeded above `max_bytes`.
Result<std::string> ReadWholeFile(const std::string& path, uint64_t max_bytes);

}  // namespace sluice

#endif  // SLUICE_FORMATS_MAPPED_FILE_H_
