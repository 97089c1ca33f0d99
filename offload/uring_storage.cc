// Storage by io_uring (Axboe, 2019): one ring, the file registered, and as much of the buffer as
// the system lets it lock.
#include <fmt/format.h>
#include <liburing.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "offload/storage_file.h"

namespace sluice {
namespace {

// The largest buffer that one registration takes is 1 GiB; smaller parts let a low lock limit
// still hold some of them.
constexpr size_t kRegisteredPart = size_t{64} << 20;

std::string WhyNot(int error) {
  switch (error) {
    case ENOSYS:
      return "this kernel has no io_uring (5.6 or later has)";
    case EPERM:
    case EACCES:
      return "io_uring is forbidden here (a container's seccomp profile, or the setting "
             "kernel.io_uring_disabled; 0 allows it)";
    case ENOMEM:
      return "io_uring needs more locked memory than the limit allows (ulimit -l)";
    default:
      return fmt::format("io_uring: {}", std::strerror(error));
  }
}

class UringStorage : public Storage {
 public:
  UringStorage(StorageFile file, int depth) : file_(std::move(file)), depth_(depth) {}

  ~UringStorage() override {
    if (!ready_) return;
    // Reads whose caller gave up still write to its buffers.
    while (!tags_.empty()) {
      const int error = io_uring_submit_and_wait(&ring_, 1);
      if (error < 0 && error != -EINTR && error != -EAGAIN && error != -EBUSY) break;
      Collect([](const io_uring_cqe&) {});
    }
    io_uring_queue_exit(&ring_);
  }

  // 0 or an errno.
  int Start(std::span<std::byte> buffer) {
    const int error = io_uring_queue_init(static_cast<unsigned>(depth_), &ring_, 0);
    if (error < 0) return -error;
    ready_ = true;
    const int descriptor = file_.descriptor();
    fixed_file_ = io_uring_register_files(&ring_, &descriptor, 1) == 0;
    RegisterBuffer(buffer);
    description_ =
        fmt::format("io_uring, {}, {}", file_.direct() ? "O_DIRECT" : "page cache",
                    registered_bytes_ == 0               ? "no registered buffers"
                    : registered_bytes_ == buffer.size() ? "registered buffers"
                                                         : "part of the buffers registered");
    return 0;
  }

  StorageFile TakeFile() { return std::move(file_); }

  const std::string& description() const override { return description_; }
  uint32_t alignment() const override { return file_.direct() ? StorageFile::kDirectAlignment : 1; }
  int depth() const override { return depth_; }

  void Submit(const StorageRead& read) override {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);  // there is one: depth() entries, fewer reads
    const int descriptor = fixed_file_ ? 0 : file_.descriptor();
    const int part = RegisteredPart(read);
    if (part >= 0) {
      io_uring_prep_read_fixed(sqe, descriptor, read.buffer, read.size_bytes, read.offset_bytes,
                               part);
    } else {
      io_uring_prep_read(sqe, descriptor, read.buffer, read.size_bytes, read.offset_bytes);
    }
    if (fixed_file_) sqe->flags |= IOSQE_FIXED_FILE;
    sqe->user_data = read.tag;
    tags_.push_back(read.tag);
    // At once: the drive works while the caller prepares the next.
    io_uring_submit(&ring_);
  }

  void Wait(std::vector<StorageDone>* done) override {
    io_uring_cqe* cqe = nullptr;
    while (true) {
      const int error = io_uring_submit_and_wait(&ring_, 1);
      if (error >= 0 && io_uring_peek_cqe(&ring_, &cqe) == 0) break;
      if (error < 0 && error != -EINTR && error != -EAGAIN && error != -EBUSY) {
        return FailAll(error, done);
      }
    }
    Collect([&](const io_uring_cqe& end) { done->push_back({end.user_data, end.res}); });
  }

 private:
  // What has come; each is taken from the ring after `take`, which may run out of memory.
  template <typename Take>
  void Collect(const Take& take) {
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      take(*cqe);
      tags_.erase(std::find(tags_.begin(), tags_.end(), cqe->user_data));
      io_uring_cqe_seen(&ring_, cqe);
    }
  }

  void RegisterBuffer(std::span<std::byte> buffer) {
    buffer_ = buffer;
    std::vector<iovec> parts;
    for (size_t begin = 0; begin < buffer.size(); begin += kRegisteredPart) {
      parts.push_back({buffer.data() + begin, std::min(kRegisteredPart, buffer.size() - begin)});
    }
    while (!parts.empty()) {
      if (io_uring_register_buffers(&ring_, parts.data(), static_cast<unsigned>(parts.size())) ==
          0) {
        for (const iovec& part : parts) registered_bytes_ += part.iov_len;
        return;
      }
      parts.resize(parts.size() / 2);  // a limit on locked memory: less, then none
    }
  }

  // The registered part that holds the whole read, or -1.
  int RegisteredPart(const StorageRead& read) const {
    if (read.buffer < buffer_.data()) return -1;
    const auto begin = static_cast<size_t>(read.buffer - buffer_.data());
    const size_t end = begin + read.size_bytes;
    if (end > registered_bytes_ || begin / kRegisteredPart != (end - 1) / kRegisteredPart) {
      return -1;
    }
    return static_cast<int>(begin / kRegisteredPart);
  }

  // The ring itself does not work any more: every read on its way has failed.
  void FailAll(int error, std::vector<StorageDone>* done) {
    for (uint64_t tag : tags_) done->push_back({tag, error});
    tags_.clear();
  }

  StorageFile file_;
  int depth_;
  io_uring ring_ = {};
  bool ready_ = false;
  bool fixed_file_ = false;
  std::span<std::byte> buffer_;
  size_t registered_bytes_ = 0;
  std::string description_;
  std::vector<uint64_t> tags_;  // on their way
};

}  // namespace

Result<std::unique_ptr<Storage>> MakeUringStorage(StorageFile* file,
                                                  const StorageOptions& options) {
  if (Status status = ProbeUring(); !status.ok()) return status;
  auto storage = std::make_unique<UringStorage>(std::move(*file), options.depth);
  if (const int error = storage->Start(options.buffer); error != 0) {
    *file = storage->TakeFile();
    return Status(ErrorCode::kUnsupported, WhyNot(error));
  }
  return std::unique_ptr<Storage>(std::move(storage));
}

Status ProbeUring() {
  io_uring ring = {};
  const int error = io_uring_queue_init(1, &ring, 0);
  if (error < 0) return Status(ErrorCode::kUnsupported, WhyNot(-error));
  io_uring_queue_exit(&ring);
  return Status();
}

}  // namespace sluice
