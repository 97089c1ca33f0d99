// Division of an operation among threads.
#ifndef SLUICE_RUNTIME_PARALLEL_H_
#define SLUICE_RUNTIME_PARALLEL_H_

#include <cstdint>
#include <functional>

namespace sluice {

// Processors that this process may use (affinity included).
int UsableProcessors();

// A team of threads for one pass at a time. Work is handed out as ranges of items, so results must
// not depend on which thread takes what.
class ThreadTeam {
 public:
  explicit ThreadTeam(int threads) : threads_(threads) {}
  int threads() const { return threads_; }

  // Calls body(begin, end) for ranges that cover [0, items), each of `grain` items (the last may
  // be shorter), from all threads; returns when all are done. One range: runs on the caller.
  void For(int64_t items, int64_t grain,
           const std::function<void(int64_t begin, int64_t end)>& body) const;

 private:
  int threads_;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_PARALLEL_H_
