#include "offload/system.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace sluice {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// The first number in a file; none for "max" or a file that is not there.
std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

uint64_t MemAvailable(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string key;
  uint64_t kib = 0;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    if (words >> key >> kib && key == "MemAvailable:") return kib * 1024;
  }
  return kNoLimit;
}

// What a group and all those above it leave. Page cache in use counts as free: it is given back.
uint64_t GroupLeaves(const std::string& mount, std::string group, const char* limit_name,
                     const char* usage_name, const char* cache_key) {
  uint64_t least = kNoLimit;
  while (true) {
    const std::string folder = mount + group;
    const std::optional<uint64_t> limit = ReadNumber(folder + "/" + limit_name);
    const std::optional<uint64_t> usage = ReadNumber(folder + "/" + usage_name);
    if (limit && usage) {
      uint64_t cache = 0;
      std::ifstream stat(folder + "/memory.stat");
      std::string key;
      uint64_t value = 0;
      while (stat >> key >> value) {
        if (key == cache_key) cache = value;
      }
      const uint64_t used = *usage - std::min(*usage, cache);
      least = std::min(least, *limit - std::min(*limit, used));
    }
    if (group.empty() || group == "/") return least;
    group.resize(group.rfind('/'));
  }
}

}  // namespace

uint64_t AvailableMemoryBytes(const std::string& root) {
  uint64_t available = MemAvailable(root);
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (group.empty() || group[0] != '/') continue;
    if (controllers.empty()) {
      available = std::min(available, GroupLeaves(root + "/sys/fs/cgroup", group, "memory.max",
                                                  "memory.current", "inactive_file"));
    } else if (controllers == "memory") {
      available = std::min(
          available, GroupLeaves(root + "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                 "memory.usage_in_bytes", "total_inactive_file"));
    }
  }
  return available;
}

}  // namespace sluice
