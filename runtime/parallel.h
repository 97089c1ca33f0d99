// Division of an operation among threads.
#ifndef SLUICE_RUNTIME_PARALLEL_H_
#define SLUICE_RUNTIME_PARALLEL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace sluice {

// A team of threads for one pass at a time: the caller and threads() - 1 workers that live as long
// as the team. Work is handed out as ranges of items, so results must not depend on which thread
// takes what. Each thread has a run of neighbouring ranges of its own, which it takes in ascending
// order, so that what it reads is one stream; then it takes what is left of the others'.
//
// A pass is hundreds of operations, some of a few microseconds, so waiting threads spin for a short
// time before they sleep; they sleep then, because on a busy machine a thread that spins takes the
// processor from the one it waits for. A worker that wakes late holds nobody up: the others
// take its ranges.
class ThreadTeam {
 public:
  // Where the system grants fewer threads the team is smaller. REQUIRES: threads >= 1.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  using Body = std::function<void(int64_t begin, int64_t end)>;
  // Calls body(begin, end) for ranges that cover [0, items), each of `grain` items (the last may
  // be shorter), from all threads; returns when all are done. One range, or one thread: they run on
  // the caller.
  // From one thread at a time, and not from a body.
  void For(int64_t items, int64_t grain, const Body& body);

 private:
  // A thread's own ranges, the last of which ends at `end`. A cache line each: threads take from
  // them all the time.
  struct alignas(64) Share {
    std::atomic<int64_t> untaken = 0;
    int64_t end = 0;
  };

  void BindWorkers();
  void Work(size_t thread);
  bool RunOneRange(size_t thread);
  bool RunOneRangeOf(Share* share);

  // Ranges of the current operation that nobody has taken. The operation (body_ and what follows,
  // and the ends of shares) changes only when all are done, so whoever took one may read it.
  std::vector<Share> shares_;
  std::atomic<int64_t> undone_ = 0;
  const Body* body_ = nullptr;
  int64_t items_ = 0;
  int64_t grain_ = 0;

  std::atomic<uint32_t> calls_ = 0;  // what idle workers sleep on
  std::atomic<uint32_t> ends_ = 0;   // what the caller sleeps on
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_PARALLEL_H_
