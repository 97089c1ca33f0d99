// Files that are written: the calls to the operating system by which they come into being, and one
// open file with errors as values.
#ifndef SLUICE_FORMATS_OUTPUT_FILE_H_
#define SLUICE_FORMATS_OUTPUT_FILE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "formats/status.h"

namespace sluice {

// Every call that changes a file or a folder, so that a test can make a chosen one fail, or let the
// program end there. Each does what its system call does: -1 and errno on failure. Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual int Open(const std::string& path, int flags);
  virtual ssize_t Write(int fd, std::span<const std::byte> bytes, uint64_t offset_bytes);
  virtual int Resize(int fd, uint64_t size_bytes);
  // Takes the space for `size_bytes` from the disk (fallocate); EOPNOTSUPP where that is not known.
  virtual int Reserve(int fd, uint64_t size_bytes);
  virtual int Sync(int fd);
  virtual int Rename(const std::string& from, const std::string& to);
  virtual int Remove(const std::string& path);
  // What this user may still write to the disk of an open file.
  virtual int FreeSpace(int fd, uint64_t* bytes);
};

// The operating system's own. Never null.
FileSystem* SystemFiles();

// One open file. Errors: kIo with path, offset and the text of errno; a disk without space is said
// with what is needed and what is free.
class OutputFile {
 public:
  // Opens or makes a file, and locks it until this object or the process ends. What it holds stays.
  // Errors: kIo, also when another process has the lock.
  static Result<std::unique_ptr<OutputFile>> OpenLocked(FileSystem* files, const std::string& path);
  // The same without a lock.
  static Result<std::unique_ptr<OutputFile>> Open(FileSystem* files, const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& path() const { return path_; }
  Result<uint64_t> SizeBytes() const;
  // Whether the disk has room for this file to hold `size_bytes`, beside what it holds already.
  // Errors: kDoesNotFit with both numbers; kIo.
  Status CheckSpace(uint64_t size_bytes) const;
  // Makes the file `size_bytes` long and takes that space from the disk, as far as the file system
  // can.
  Status Reserve(uint64_t size_bytes);
  Status Resize(uint64_t size_bytes);
  // From now on writes go past the page cache where offset, size and address are multiples of
  // kDirectAlignment, if the file system can do that. Before other threads write.
  void WriteDirectly();
  Status WriteAt(uint64_t offset_bytes, std::span<const std::byte> bytes);
  // Errors: kTruncated when the file ends before; kIo.
  Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const;
  // Until the disk has it.
  Status Sync();

 private:
  OutputFile(FileSystem* files, int fd, std::string path)
      : files_(files), fd_(fd), path_(std::move(path)) {}
  Status Error(const std::string& what) const;
  bool FitsDirect(uint64_t offset_bytes, std::span<const std::byte> bytes) const;

  FileSystem* files_;
  int fd_;
  int direct_fd_ = -1;  // the same file, past the page cache; -1: none
  std::string path_;
};

// Makes `from` appear as `to`, in place of what may be there. Errors: kIo.
Status RenameFile(FileSystem* files, const std::string& from, const std::string& to);
// Errors: kIo.
Status RemoveFile(FileSystem* files, const std::string& path);
// Waits until the disk has the names in the folder of `path`. Errors: kIo.
Status SyncFolder(FileSystem* files, const std::string& path);

}  // namespace sluice

#endif  // SLUICE_FORMATS_OUTPUT_FILE_H_
