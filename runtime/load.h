// Whether a measurement was disturbed: what else the processors did meanwhile. Clocks are read in
// one function; the judgement is of numbers alone.
#ifndef SLUICE_RUNTIME_LOAD_H_
#define SLUICE_RUNTIME_LOAD_H_

#include <string>
#include <utility>

namespace sluice {

// Clocks at one moment, in seconds; only differences mean something. Those of the machine are 0
// where the system does not tell.
struct LoadReading {
  double wall_s = 0;
  double own_s = 0;     // processor time of this process
  double busy_s = 0;    // of all processes, on all processors together
  double stolen_s = 0;  // that the host of a virtual machine took from its processors
};

// /proc/stat and the process's own clock; `root` stands before /proc.
LoadReading ReadLoad(const std::string& root = "");

// What a measurement lost between two readings.
struct Load {
  double missing = 0;  // share of the processor time that its threads wanted and did not get
  double others = 0;   // share of all processors' time that others used, or a host took
};

// `threads`: that computed all the time; 0 where they waited by nature, as those of a drive do.
Load LoadBetween(const LoadReading& before, const LoadReading& after, int threads, int processors);

// Whether a figure that was measured under it is not the machine's: it may be far too low. What
// others do with a shared memory bus or drive without using this machine's processors is not seen.
bool IsBusy(const Load& load);

// Calls `measure` until it was quiet meanwhile, and else as often again as *repeats_left says,
// which it counts down. Returns what it measured in quiet, else the fastest: disturbances only slow
// down. `measure` returns a Result<T> of a T with `load`, `rate` gives the T's speed.
template <typename Measure, typename Rate>
auto MeasureInQuiet(const Measure& measure, const Rate& rate, bool (*is_busy)(const Load&),
                    int* repeats_left) {
  auto best = measure();
  while (best.ok() && is_busy(best->load) && *repeats_left > 0) {
    --*repeats_left;
    auto next = measure();
    if (!next.ok()) return next;
    if (!is_busy(next->load) || rate(*next) > rate(*best)) best = std::move(next);
  }
  return best;
}

}  // namespace sluice

#endif  // SLUICE_RUNTIME_LOAD_H_
