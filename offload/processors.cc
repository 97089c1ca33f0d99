#include "offload/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "offload/control_groups.h"

namespace sluice {
namespace {

constexpr int kNoQuota = std::numeric_limits<int>::max();

int ReadInt(const std::string& path, int otherwise) {
  std::ifstream file(path);
  int value = 0;
  return file >> value ? value : otherwise;
}

int RoundedUp(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return kNoQuota;
  return static_cast<int>(std::clamp(std::ceil(quota / period), 1.0, 1e6));
}

}  // namespace

std::vector<std::vector<int>> CoresOf(std::span<const int> cpus, const std::string& root) {
  std::map<std::pair<int, int>, std::vector<int>> known;
  std::vector<std::vector<int>> cores;
  for (int cpu : cpus) {
    const std::string topology =
        root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const int core = ReadInt(topology + "core_id", -1);
    if (core < 0) {
      cores.push_back({cpu});
    } else {
      known[{ReadInt(topology + "physical_package_id", 0), core}].push_back(cpu);
    }
  }
  for (auto& [id, siblings] : known) cores.push_back(std::move(siblings));
  return cores;
}

std::vector<int> AllowedProcessors() {
  std::vector<int> cpus;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

int ProcessorQuota(const std::string& root) {
  int least = kNoQuota;
  for (const ControlGroup& group : ControlGroupsOf("cpu", root)) {
    double quota = 0;
    double period = 0;
    if (group.v2) {
      std::ifstream file(group.folder + "/cpu.max");
      if (!(file >> quota >> period)) continue;  // "max 100000"
    } else {
      std::ifstream(group.folder + "/cpu.cfs_quota_us") >> quota;
      std::ifstream(group.folder + "/cpu.cfs_period_us") >> period;
    }
    least = std::min(least, RoundedUp(quota, period));
  }
  return least;
}

int UsableCores() {
  const std::vector<int> cpus = AllowedProcessors();
  const int cores = cpus.empty()
                        ? static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u))
                        : static_cast<int>(CoresOf(cpus).size());
  return std::min(cores, ProcessorQuota());
}

}  // namespace sluice
