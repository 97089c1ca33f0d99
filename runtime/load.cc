#include "runtime/load.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>

namespace sluice {
namespace {

// Threads that wait for the last of them at the end of each operation miss some percent in quiet.
constexpr double kBusyMissing = 0.15;
// A desktop at rest uses two or three percent.
constexpr double kBusyOthers = 0.1;

double Seconds(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double Share(double part, double all) { return all > 0 ? std::clamp(part / all, 0.0, 1.0) : 0; }

}  // namespace

LoadReading ReadLoad(const std::string& root) {
  LoadReading reading;
  reading.wall_s = Seconds(CLOCK_MONOTONIC);
  reading.own_s = Seconds(CLOCK_PROCESS_CPUTIME_ID);
  // user nice system idle iowait irq softirq steal; user includes what guests use (proc(5)).
  std::array<double, 8> ticks = {};
  std::ifstream file(root + "/proc/stat");
  std::string name;
  file >> name;
  for (double& value : ticks) file >> value;
  if (!file || name != "cpu") return reading;
  const auto per_second = static_cast<double>(sysconf(_SC_CLK_TCK));
  reading.busy_s = (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / per_second;
  reading.stolen_s = ticks[7] / per_second;
  return reading;
}

Load LoadBetween(const LoadReading& before, const LoadReading& after, int threads, int processors) {
  const double wall = after.wall_s - before.wall_s;
  const double own = after.own_s - before.own_s;
  const double others = after.busy_s - before.busy_s - own;
  const double stolen = after.stolen_s - before.stolen_s;
  const double wanted = wall * threads;
  // A system that does not tell leaves `others` below 0, which counts as none.
  return {Share(wanted - own, wanted), Share(std::max(others, 0.0) + stolen, wall * processors)};
}

bool IsBusy(const Load& load) { return load.missing > kBusyMissing || load.others > kBusyOthers; }

}  // namespace sluice
