#include "tools/model_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "formats/gguf_set.h"
#include "formats/mapped_file.h"
#include "formats/sluice_file.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/version.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "\x89SLUICE\n";  // FORMAT.md, the first field

Status ErrnoStatus(const std::string& what, const std::string& path) {
  return Status(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                fmt::format("{} {}: {}", what, path, std::strerror(errno)));
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Everything by which a change of the source can be seen without reading it.
Result<std::string> SourceIdentity(const std::string& source) {
  std::error_code error;
  const fs::path path = fs::canonical(source, error);
  if (error) return Status(ErrorCode::kNotFound, source + ": " + error.message());
  std::string name = path.string();
  std::vector<std::string> files;
  if (fs::is_directory(path, error)) {
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      if (it->is_regular_file(error)) files.push_back(it->path().string());
    }
    if (error) return Status(ErrorCode::kIo, source + ": " + error.message());
    std::sort(files.begin(), files.end());
  } else {
    files = GgufShardPaths(name);
    name = files.front();  // any shard stands for the set
  }
  std::string identity = "sluice " + Version() + '\0' + name;
  for (const std::string& file : files) {
    struct stat info;
    if (stat(file.c_str(), &info) != 0) return ErrnoStatus("stat", file);
    identity += fmt::format("\n{} {} {} {}.{:09}", file, info.st_ino, info.st_size,
                            info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  return identity;
}

// An exclusive lock on a file beside the conversion. Ends with the process, however that ends.
class FileLock {
 public:
  static Result<FileLock> Acquire(const std::string& path, bool quiet) {
    FileLock lock;
    lock.fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock.fd_ < 0) return ErrnoStatus("create", path);
    if (flock(lock.fd_, LOCK_EX | LOCK_NB) == 0) return lock;
    if (errno == EWOULDBLOCK && !quiet) PrintLine("waiting for another sluice that converts this");
    while (flock(lock.fd_, LOCK_EX) != 0) {
      if (errno != EINTR) return ErrnoStatus("lock", path);
      if (Interrupted()) return InterruptedStatus();
    }
    return lock;
  }
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  FileLock() = default;
  int fd_ = -1;
};

// Whether a usable conversion is there. One of an older format, or damaged, is not.
bool IsUsable(const std::string& path) { return SluiceFile::Open(path).ok(); }

Status MakeDirectories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Status(ErrorCode::kIo, "create " + path + ": " + error.message());
  return Status();
}

}  // namespace

Result<std::string> CacheDirectory() {
  std::string directory = Environment("SLUICE_CACHE");
  if (directory.empty()) {
    std::string base = Environment("XDG_CACHE_HOME");
    if (base.empty() && !Environment("HOME").empty()) base = Environment("HOME") + "/.cache";
    if (base.empty()) {
      return Status(
          ErrorCode::kInvalidArgument,
          "no directory for the cache: none of SLUICE_CACHE, XDG_CACHE_HOME, HOME is set");
    }
    directory = base + "/sluice";
  }
  if (Status s = MakeDirectories(directory); !s.ok()) return s;
  return directory;
}

Result<bool> IsSluiceFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus("open", path);
  if (S_ISDIR(info.st_mode)) return false;
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  char start[kMagic.size()] = {};
  if ((*file)->size_bytes() < sizeof start) return false;
  if (Status s = (*file)->ReadAt(0, std::as_writable_bytes(std::span(start))); !s.ok()) return s;
  return std::string_view(start, sizeof start) == kMagic;
}

Result<ConvertReport> ConvertWithProgress(const std::string& source, const std::string& output,
                                          ConvertOptions options, bool quiet) {
  Progress bar("converting", Progress::Unit::kBytes, quiet);
  options.progress = [&bar](const ConvertProgress& progress) {
    bar.Update(progress.done_bytes, progress.total_bytes, progress.tensor);
    return !Interrupted();
  };
  return ConvertCheckpoint(source, output, options);
}

Result<std::string> SluiceFileFor(const std::string& model, bool quiet) {
  Result<bool> ready = IsSluiceFile(model);
  if (!ready.ok()) return ready.status();
  // A damaged .sluice file is to be reported as such, by who opens it.
  if (*ready || fs::path(model).extension() == ".sluice") return model;

  Result<std::string> identity = SourceIdentity(model);
  if (!identity.ok()) return identity.status();
  Result<std::string> cache = CacheDirectory();
  if (!cache.ok()) return cache.status();
  const std::string directory = *cache + "/models";
  if (Status s = MakeDirectories(directory); !s.ok()) return s;
  std::error_code error;
  const std::string stem = fs::canonical(model, error).stem().string();
  const std::string path = fmt::format("{}/{}-{:016x}.sluice", directory, stem.substr(0, 100),
                                       HashBytes(std::as_bytes(std::span<const char>(*identity))));
  if (IsUsable(path)) return path;

  Result<FileLock> lock = FileLock::Acquire(path + ".lock", quiet);
  if (!lock.ok()) return lock.status();
  if (IsUsable(path)) return path;  // made by who held the lock
  if (!quiet) PrintLine(fmt::format("converting {} into {}", model, path));
  ConvertOptions options;
  options.resume = true;
  Result<ConvertReport> report = ConvertWithProgress(model, path, options, quiet);
  if (!report.ok() && report.status().code() == ErrorCode::kInvalidArgument) {
    options.resume = false;  // what was begun cannot be used
    report = ConvertWithProgress(model, path, options, quiet);
  }
  if (!report.ok()) return report.status();
  return path;
}

}  // namespace sluice
