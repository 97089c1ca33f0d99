// Control groups of this process, as limits are looked up in them.
#ifndef SLUICE_OFFLOAD_CONTROL_GROUPS_H_
#define SLUICE_OFFLOAD_CONTROL_GROUPS_H_

#include <string>
#include <vector>

namespace sluice {

struct ControlGroup {
  bool v2 = false;
  std::string folder;  // of the group itself or of one above it
};

// Every group that limits `controller` ("memory", "cpu") for this process: its own and all above,
// in both versions' hierarchies. `root` stands before /proc and /sys.
std::vector<ControlGroup> ControlGroupsOf(const std::string& controller, const std::string& root);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_CONTROL_GROUPS_H_
