// A queue between threads. It has no bound of its own: what goes through it is a fixed set of
// buffers that circulate.
#ifndef SLUICE_LOADERS_WORK_QUEUE_H_
#define SLUICE_LOADERS_WORK_QUEUE_H_

#include <condition_variable>
#include <deque>
#include <mutex>

namespace sluice {

// Of pointers, not owned. Thread-safe.
template <typename T>
class WorkQueue {
 public:
  void Push(T* item) {
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) return;
      items_.push_back(item);
    }
    changed_.notify_one();
  }

  // Waits for an item. Null: the queue is closed and empty, or stopped.
  T* Pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !items_.empty() || closed_; });
    if (items_.empty()) return nullptr;
    T* item = items_.front();
    items_.pop_front();
    return item;
  }

  // No more will come.
  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  // Nobody shall get any more, not even what is there or what still comes.
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = stopped_ = true;
      items_.clear();
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T*> items_;
  bool closed_ = false;
  bool stopped_ = false;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_WORK_QUEUE_H_
