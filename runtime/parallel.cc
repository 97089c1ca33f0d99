#include "runtime/parallel.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace sluice {

int UsableProcessors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(CPU_COUNT(&set), 1);
  return static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
}

void ThreadTeam::For(int64_t items, int64_t grain,
                     const std::function<void(int64_t begin, int64_t end)>& body) const {
  if (items <= 0) return;
  const int64_t ranges = (items + grain - 1) / grain;
  if (ranges == 1 || threads_ == 1) {
    body(0, items);
    return;
  }
  const int team = static_cast<int>(std::min<int64_t>(threads_, ranges));
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
  for (int64_t range = 0; range < ranges; ++range) {
    body(range * grain, std::min(items, (range + 1) * grain));
  }
}

}  // namespace sluice
