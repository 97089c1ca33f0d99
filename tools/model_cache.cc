#include "tools/model_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "formats/mapped_file.h"
#include "formats/sluice_file.h"
#include "loaders/checkpoint.h"
#include "tools/interrupt.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/source_files.h"

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

// The conversion of the content `key` that is there, under whatever name its source had, or "". One
// of an older format, or damaged, is none.
std::string ConversionOf(const std::string& key, const std::string& directory) {
  const std::string ending = "-" + key + ".sluice";
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string path = it->path().string();
    if (path.ends_with(ending) && SluiceFile::Open(path).ok()) return path;
  }
  return "";
}

std::string ReadKey(const std::string& path) {
  std::ifstream file(path);
  std::string key;
  if (!std::getline(file, key) || key.size() != 16 ||
      key.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return "";
  }
  return key;
}

// Under a name of its own first: others may read it, or write it too.
void WriteKey(const std::string& path, const std::string& key) {
  const std::string written = fmt::format("{}.{}", path, getpid());
  std::error_code error;
  if (std::ofstream(written) << key << '\n') fs::rename(written, path, error);
  fs::remove(written, error);
}

// What the conversion of a source is called after: at most 100 bytes, whole characters.
std::string NameOf(const std::string& model) {
  constexpr size_t kMostBytes = 100;
  std::error_code error;
  const fs::path path = fs::canonical(model, error);
  // A dot in the name of a directory begins no extension ("Qwen2.5-7B").
  std::string name = (fs::is_directory(path, error) ? path.filename() : path.stem()).string();
  if (name.size() <= kMostBytes) return name;
  size_t size = kMostBytes;
  while (size > 0 && (static_cast<unsigned char>(name[size]) & 0xc0) == 0x80) --size;
  return name.substr(0, size);
}

// 16 digits that stand for the source's content. It is read once, and known again by paths, sizes
// and times afterwards.
Result<std::string> ContentKey(const std::string& source, const std::string& directory,
                               bool quiet) {
  Result<SourceFiles> files = SourceFilesOf(source);
  if (!files.ok()) return files.status();
  Result<uint64_t> identity = IdentityOf(*files);
  if (!identity.ok()) return identity.status();
  const std::string path = fmt::format("{}/{:016x}.key", directory, *identity);
  if (std::string key = ReadKey(path); !key.empty()) return key;
  // Before gigabytes are read of what cannot be converted.
  if (Result<Checkpoint> checkpoint = Checkpoint::Open(source); !checkpoint.ok()) {
    return checkpoint.status();
  }
  Result<uint64_t> content = ContentOf(*files, quiet);
  if (!content.ok()) return content.status();
  const std::string key = fmt::format("{:016x}", *content);
  WriteKey(path, key);  // if it fails, the source is read again next time
  return key;
}

constexpr char kElsewhere[] = "; SLUICE_CACHE names another directory";

Status MakeDirectories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (!error) return Status();
  return Status(ErrorCode::kIo, "create " + path + ": " + error.message() + kElsewhere);
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

  Result<std::string> cache = CacheDirectory();
  if (!cache.ok()) return cache.status();
  const std::string directory = *cache + "/models";
  if (Status s = MakeDirectories(directory); !s.ok()) return s;
  Result<std::string> key = ContentKey(model, directory, quiet);
  if (!key.ok()) return key.status();
  if (std::string path = ConversionOf(*key, directory); !path.empty()) return path;

  Result<FileLock> lock = FileLock::Acquire(fmt::format("{}/{}.lock", directory, *key), quiet);
  if (lock.status().code() == ErrorCode::kCancelled) return lock.status();
  if (!lock.ok()) return Status(lock.status().code(), lock.status().message() + kElsewhere);
  // Made by who held the lock.
  if (std::string path = ConversionOf(*key, directory); !path.empty()) return path;
  const std::string path = fmt::format("{}/{}-{}.sluice", directory, NameOf(model), *key);
  if (!quiet) PrintLine(fmt::format("converting {} into {}", model, path));
  ConvertOptions options;
  options.resume = true;
  options.how_to_go_on = "the same command goes on";
  Result<ConvertReport> report = ConvertWithProgress(model, path, options, quiet);
  if (!report.ok() && report.status().code() == ErrorCode::kInvalidArgument) {
    options.resume = false;  // what was begun cannot be used
    report = ConvertWithProgress(model, path, options, quiet);
  }
  if (!report.ok()) return report.status();
  return path;
}

}  // namespace sluice
