#include "formats/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "formats/checked.h"
#include "formats/mapped_file.h"

namespace sluice {
namespace {

constexpr size_t kMaxPerCall = size_t{1} << 30;  // Linux transfers at most 2^31 - 4096 at once

Status IoError(const std::string& what, const std::string& path) {
  return Status(ErrorCode::kIo, fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
}

// Whether `path` still names the file that is open as `fd`.
bool IsStillNamed(int fd, const std::string& path) {
  struct stat opened {};
  struct stat named {};
  return fstat(fd, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

int FileSystem::Open(const std::string& path, int flags) { return open(path.c_str(), flags, 0666); }

ssize_t FileSystem::Write(int fd, std::span<const std::byte> bytes, uint64_t offset_bytes) {
  return pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
}

int FileSystem::Resize(int fd, uint64_t size_bytes) {
  return ftruncate(fd, static_cast<off_t>(size_bytes));
}

int FileSystem::Reserve(int fd, uint64_t size_bytes) {
  return fallocate(fd, 0, 0, static_cast<off_t>(size_bytes));
}

int FileSystem::Sync(int fd) { return fsync(fd); }

int FileSystem::Rename(const std::string& from, const std::string& to) {
  return rename(from.c_str(), to.c_str());
}

int FileSystem::Remove(const std::string& path) { return unlink(path.c_str()); }

int FileSystem::FreeSpace(int fd, uint64_t* bytes) {
  struct statvfs info {};
  if (fstatvfs(fd, &info) != 0) return -1;
  *bytes = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  return 0;
}

FileSystem* SystemFiles() {
  static FileSystem files;
  return &files;
}

Result<std::unique_ptr<OutputFile>> OutputFile::Open(FileSystem* files, const std::string& path) {
  const int fd = files->Open(path, O_RDWR | O_CREAT | O_CLOEXEC);
  if (fd < 0) return IoError("create", path);
  return std::unique_ptr<OutputFile>(new OutputFile(files, fd, path));
}

Result<std::unique_ptr<OutputFile>> OutputFile::OpenLocked(FileSystem* files,
                                                           const std::string& path) {
  for (;;) {
    Result<std::unique_ptr<OutputFile>> file = Open(files, path);
    if (!file.ok()) return file.status();
    if (flock((*file)->fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EINTR) continue;
      if (errno == EWOULDBLOCK) {
        return Status(ErrorCode::kIo, path + ": another process is writing this file");
      }
      return IoError("lock", path);
    }
    // Who held the lock before may have renamed or removed the file since it was opened here.
    if (IsStillNamed((*file)->fd_, path)) return file;
  }
}

OutputFile::~OutputFile() {
  if (direct_fd_ >= 0) close(direct_fd_);
  close(fd_);
}

Status OutputFile::Error(const std::string& what) const {
  const int error = errno;
  std::string text = fmt::format("{}: {}: {}", path_, what, std::strerror(error));
  uint64_t free_bytes = 0;
  if ((error == ENOSPC || error == EDQUOT) && files_->FreeSpace(fd_, &free_bytes) == 0) {
    text += fmt::format(" ({} bytes are free)", free_bytes);
  }
  return Status(ErrorCode::kIo, text);
}

Result<uint64_t> OutputFile::SizeBytes() const {
  struct stat info {};
  if (fstat(fd_, &info) != 0) return Error("fstat");
  return static_cast<uint64_t>(info.st_size);
}

Status OutputFile::CheckSpace(uint64_t size_bytes) const {
  struct stat info {};
  if (fstat(fd_, &info) != 0) return Error("fstat");
  const uint64_t held_bytes = static_cast<uint64_t>(info.st_blocks) * 512;
  const uint64_t missing_bytes = size_bytes - std::min(size_bytes, held_bytes);
  uint64_t free_bytes = 0;
  if (files_->FreeSpace(fd_, &free_bytes) != 0) return Error("statvfs");
  if (missing_bytes <= free_bytes) return Status();
  return Status(ErrorCode::kDoesNotFit, fmt::format("{}: needs {} bytes of disk, {} are free",
                                                    path_, missing_bytes, free_bytes));
}

Status OutputFile::Reserve(uint64_t size_bytes) {
  if (size_bytes > static_cast<uint64_t>(INT64_MAX)) {
    return Status(ErrorCode::kUnsupported, fmt::format("{}: {} bytes", path_, size_bytes));
  }
  while (files_->Reserve(fd_, size_bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS) {
      return Error(fmt::format("reserve {} bytes", size_bytes));
    }
    break;  // then a write may find the disk full later
  }
  return Resize(size_bytes);
}

Status OutputFile::Resize(uint64_t size_bytes) {
  if (files_->Resize(fd_, size_bytes) == 0) return Status();
  return Error(fmt::format("resize to {} bytes", size_bytes));
}

void OutputFile::WriteDirectly() {
  // The open file again, whatever its path names by now.
  direct_fd_ = files_->Open(fmt::format("/proc/self/fd/{}", fd_), O_WRONLY | O_CLOEXEC | O_DIRECT);
}

bool OutputFile::FitsDirect(uint64_t offset_bytes, std::span<const std::byte> bytes) const {
  return direct_fd_ >= 0 &&
         (offset_bytes | bytes.size() | reinterpret_cast<uintptr_t>(bytes.data())) %
                 kDirectAlignment ==
             0;
}

Status OutputFile::WriteAt(uint64_t offset_bytes, std::span<const std::byte> bytes) {
  bool refused = false;
  while (!bytes.empty()) {
    const bool direct = !refused && FitsDirect(offset_bytes, bytes);
    const ssize_t written = files_->Write(
        direct ? direct_fd_ : fd_, bytes.first(std::min(bytes.size(), kMaxPerCall)), offset_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && direct && errno == EINVAL) {  // larger blocks, or none of this
      refused = true;
      continue;
    }
    if (written == 0) errno = ENOSPC;
    if (written <= 0) {
      return Error(fmt::format("write of {} bytes at offset {}", bytes.size(), offset_bytes));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset_bytes += static_cast<uint64_t>(written);
  }
  return Status();
}

Status OutputFile::ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got =
        pread(fd_, out.data(), std::min(out.size(), kMaxPerCall), static_cast<off_t>(offset_bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error(fmt::format("read of {} bytes at offset {}", out.size(), offset_bytes));
    if (got == 0) {
      return Status(ErrorCode::kTruncated,
                    fmt::format("{}: ends at offset {}", path_, offset_bytes));
    }
    out = out.subspan(static_cast<size_t>(got));
    offset_bytes += static_cast<uint64_t>(got);
  }
  return Status();
}

Status OutputFile::Sync() { return files_->Sync(fd_) == 0 ? Status() : Error("fsync"); }

Status RenameFile(FileSystem* files, const std::string& from, const std::string& to) {
  return files->Rename(from, to) == 0 ? Status() : IoError("rename to " + to, from);
}

Status RemoveFile(FileSystem* files, const std::string& path) {
  return files->Remove(path) == 0 ? Status() : IoError("remove", path);
}

Status SyncFolder(FileSystem* files, const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  const int fd = files->Open(folder.string(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return IoError("open", folder.string());
  // Some file systems cannot sync a folder; the file itself is on disk by then.
  const Status status =
      files->Sync(fd) != 0 && errno != EINVAL ? IoError("fsync", folder.string()) : Status();
  close(fd);
  return status;
}

}  // namespace sluice
