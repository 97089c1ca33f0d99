// Storage by threads that call pread: where io_uring is not to be had.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "offload/storage_file.h"

namespace sluice {
namespace {

// A drive's best is reached with few requests of a MiB; more threads only cost.
constexpr int kMaxThreads = 8;

class PreadStorage : public Storage {
 public:
  PreadStorage(StorageFile file, int depth)
      : file_(std::move(file)),
        depth_(depth),
        description_(fmt::format("pread, {}", file_.direct() ? "O_DIRECT" : "page cache")) {
    try {
      for (int i = 0; i < std::min(depth, kMaxThreads); ++i) {
        threads_.emplace_back([this] { Work(); });
      }
    } catch (const std::system_error&) {
      // A limit on threads: those that exist do the work; without any, Wait does it.
    }
  }

  ~PreadStorage() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    submitted_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  const std::string& description() const override { return description_; }
  uint32_t alignment() const override { return file_.direct() ? StorageFile::kDirectAlignment : 1; }
  int depth() const override { return depth_; }

  void Submit(const StorageRead& read) override {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(read);
    }
    submitted_.notify_one();
  }

  void Wait(std::vector<StorageDone>* done) override {
    std::unique_lock lock(mutex_);
    if (threads_.empty()) {
      const StorageRead read = queue_.front();
      queue_.pop_front();
      done->push_back(Run(read));
      return;
    }
    finished_.wait(lock, [this] { return !done_.empty(); });
    done->insert(done->end(), done_.begin(), done_.end());
    done_.clear();
  }

 private:
  StorageDone Run(const StorageRead& read) const {
    const ssize_t got = pread(file_.descriptor(), read.buffer, read.size_bytes,
                              static_cast<off_t>(read.offset_bytes));
    return {read.tag, got >= 0 ? static_cast<int64_t>(got) : -int64_t{errno}};
  }

  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      submitted_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      const StorageRead read = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const StorageDone result = Run(read);
      lock.lock();
      done_.push_back(result);
      finished_.notify_one();
    }
  }

  StorageFile file_;
  int depth_;
  std::string description_;
  std::mutex mutex_;
  std::condition_variable submitted_, finished_;
  std::deque<StorageRead> queue_;  // these three with mutex_
  std::vector<StorageDone> done_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<Storage> MakePreadStorage(StorageFile file, const StorageOptions& options) {
  return std::make_unique<PreadStorage>(std::move(file), options.depth);
}

}  // namespace sluice
