#include "tests/support/faulty_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>

#include "tests/support/program.h"

namespace sluice::testing {

void FaultyFiles::FailAt(uint64_t call, int error, bool for_ever) {
  fail_at_ = call;
  error_ = error;
  for_ever_ = for_ever;
}

void FaultyFiles::DieAt(uint64_t call) { die_at_ = call; }

FaultyFiles::Fate FaultyFiles::Next(const char* call, const std::string& path) {
  const uint64_t number = calls_++;
  log_.push_back(std::string(call) + " " + std::filesystem::path(path).filename().string());
  if (die_at_ && number >= *die_at_) {
    errno = EIO;
    return number == *die_at_ ? Fate::kDie : Fate::kFail;
  }
  if (fail_at_ && (number == *fail_at_ || (for_ever_ && number > *fail_at_))) {
    errno = error_;
    return Fate::kFail;
  }
  return Fate::kWork;
}

int FaultyFiles::Open(const std::string& path, int flags) {
  const std::lock_guard lock(mutex_);
  if (Next("open", path) != Fate::kWork) return -1;
  const int fd = FileSystem::Open(path, flags);
  paths_[fd] = path;
  return fd;
}

ssize_t FaultyFiles::Write(int fd, std::span<const std::byte> bytes, uint64_t offset_bytes) {
  const std::lock_guard lock(mutex_);
  const Fate fate = Next("write", paths_[fd]);
  if (fate == Fate::kFail) return -1;
  if (fate == Fate::kDie) bytes = bytes.first(bytes.size() / 2);
  if (space_bytes_) {
    bytes = bytes.first(std::min<size_t>(bytes.size(), *space_bytes_));
    *space_bytes_ -= bytes.size();
    if (bytes.empty()) {
      errno = ENOSPC;
      return -1;
    }
  }
  std::string before(bytes.size(), '\0');
  [[maybe_unused]] const ssize_t got =
      pread(fd, before.data(), before.size(), static_cast<off_t>(offset_bytes));
  unsynced_[paths_[fd]].push_back({offset_bytes, std::move(before)});
  written_bytes_ += bytes.size();
  const ssize_t written = FileSystem::Write(fd, bytes, offset_bytes);
  if (fate == Fate::kWork) return written;
  errno = EIO;
  return -1;
}

int FaultyFiles::Resize(int fd, uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  return Next("resize", paths_[fd]) == Fate::kWork ? FileSystem::Resize(fd, size_bytes) : -1;
}

int FaultyFiles::Reserve(int fd, uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  if (Next("reserve", paths_[fd]) != Fate::kWork) return -1;
  if (!space_bytes_) return FileSystem::Reserve(fd, size_bytes);
  errno = EOPNOTSUPP;
  return -1;
}

int FaultyFiles::Sync(int fd) {
  const std::lock_guard lock(mutex_);
  const std::string& path = paths_[fd];
  if (Next("sync", path) != Fate::kWork) return -1;
  if (std::filesystem::is_directory(path)) {
    unsynced_names_.clear();
  } else {
    unsynced_.erase(path);
  }
  return 0;  // nothing to test in the disk itself
}

int FaultyFiles::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  if (Next("rename", from) != Fate::kWork) return -1;
  if (FileSystem::Rename(from, to) != 0) return -1;
  unsynced_names_.push_back({from, to, ""});
  if (unsynced_.contains(from)) unsynced_[to] = std::move(unsynced_[from]);
  unsynced_.erase(from);
  return 0;
}

int FaultyFiles::Remove(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (Next("remove", path) != Fate::kWork) return -1;
  if (!std::filesystem::exists(path)) return FileSystem::Remove(path);
  unsynced_names_.push_back({path, "", ReadTestFile(path)});
  return FileSystem::Remove(path);
}

int FaultyFiles::FreeSpace(int fd, uint64_t* bytes) {
  const std::lock_guard lock(mutex_);
  if (Next("free space", paths_[fd]) != Fate::kWork) return -1;
  if (space_bytes_ || free_bytes_) {
    *bytes = free_bytes_.value_or(uint64_t{1} << 60);
    return 0;
  }
  return FileSystem::FreeSpace(fd, bytes);
}

void FaultyFiles::LosePower(uint32_t seed) {
  std::mt19937 random(seed);
  for (auto& [path, writes] : unsynced_) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) continue;  // removed
    for (auto undo = writes.rbegin(); undo != writes.rend(); ++undo) {
      const uint32_t part = random() % 4;  // 0 and 1: it reached the disk
      const size_t keep = part == 3 ? undo->before.size() / 2 / 512 * 512 : 0;
      if (part < 2) continue;
      const std::string& before = undo->before;
      [[maybe_unused]] const ssize_t written =
          pwrite(fd, before.data() + keep, before.size() - keep,
                 static_cast<off_t>(undo->offset_bytes + keep));
    }
    close(fd);
  }
  // A journaling file system keeps the order of names: what is undone is the end of the list.
  size_t kept = unsynced_names_.empty() ? 0 : random() % (unsynced_names_.size() + 1);
  while (unsynced_names_.size() > kept) {
    const FolderChange& change = unsynced_names_.back();
    if (change.to.empty()) {
      WriteTestFile(change.from, change.content);
    } else {
      std::rename(change.to.c_str(), change.from.c_str());
    }
    unsynced_names_.pop_back();
  }
  unsynced_.clear();
  unsynced_names_.clear();
}

}  // namespace sluice::testing
