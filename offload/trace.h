// What happened when, for a person to look at: reads, waits and computation, in Chrome's trace
// format (Trace Event Format), which chrome://tracing and ui.perfetto.dev show.
#ifndef SLUICE_OFFLOAD_TRACE_H_
#define SLUICE_OFFLOAD_TRACE_H_

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

// Any thread.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Track : uint8_t { kCompute, kWait, kDrive };

  // Events beyond kMaxEvents are dropped, and counted: a trace is for seconds, not for days.
  static constexpr size_t kMaxEvents = 1'000'000;

  void Add(Track track, std::string name, Clock::time_point begin, Clock::time_point end,
           uint64_t size_bytes);

  // Everything so far. Error: kIo with the path.
  Status Write(const std::string& path) const;

 private:
  struct Event {
    Track track;
    std::string name;
    int64_t begin_us, end_us;  // since the trace was made
    uint64_t size_bytes;
  };

  const Clock::time_point start_ = Clock::now();
  mutable std::mutex mutex_;
  std::vector<Event> events_;  // these two with mutex_
  uint64_t dropped_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_TRACE_H_
