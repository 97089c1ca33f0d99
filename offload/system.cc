#include "offload/system.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "offload/control_groups.h"

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

// What a group leaves. Page cache in use counts as free: it is given back.
uint64_t GroupLeaves(const ControlGroup& group) {
  const std::optional<uint64_t> limit =
      ReadNumber(group.folder + (group.v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  const std::optional<uint64_t> usage =
      ReadNumber(group.folder + (group.v2 ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!limit || !usage) return kNoLimit;
  uint64_t cache = 0;
  std::ifstream stat(group.folder + "/memory.stat");
  std::string key;
  uint64_t value = 0;
  while (stat >> key >> value) {
    if (key == (group.v2 ? "inactive_file" : "total_inactive_file")) cache = value;
  }
  const uint64_t used = *usage - std::min(*usage, cache);
  return *limit - std::min(*limit, used);
}

}  // namespace

uint64_t AvailableMemoryBytes(const std::string& root) {
  uint64_t available = MemAvailable(root);
  for (const ControlGroup& group : ControlGroupsOf("memory", root)) {
    available = std::min(available, GroupLeaves(group));
  }
  return available;
}

}  // namespace sluice
