#include "offload/control_groups.h"

#include <fstream>
#include <sstream>

namespace sluice {
namespace {

bool Lists(const std::string& controllers, const std::string& wanted) {
  std::istringstream names(controllers);
  std::string name;
  while (std::getline(names, name, ',')) {
    if (name == wanted) return true;
  }
  return false;
}

}  // namespace

std::vector<ControlGroup> ControlGroupsOf(const std::string& controller, const std::string& root) {
  std::vector<ControlGroup> result;
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;  // "hierarchy:controllers:/group"; version 2 has no controllers
  while (std::getline(groups, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
    if (group.empty() || group[0] != '/') continue;
    const bool v2 = controllers.empty();
    if (!v2 && !Lists(controllers, controller)) continue;
    const std::string mount = root + "/sys/fs/cgroup" + (v2 ? "" : "/" + controllers);
    while (true) {
      result.push_back({v2, mount + group});
      if (group.empty() || group == "/") break;
      group.resize(group.rfind('/'));
    }
  }
  return result;
}

}  // namespace sluice
