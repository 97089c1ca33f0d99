// How many threads computation should use.
#ifndef SLUICE_OFFLOAD_PROCESSORS_H_
#define SLUICE_OFFLOAD_PROCESSORS_H_

#include <span>
#include <string>
#include <vector>

namespace sluice {

// The processors `cpus` (numbers as the kernel's) by physical core, siblings together: they share
// arithmetic units, so a second thread there gains nothing. A processor whose core is not known is
// a core of its own. `root` stands before /sys.
std::vector<std::vector<int>> CoresOf(std::span<const int> cpus, const std::string& root = "");

// Processors that the calling thread may run on.
std::vector<int> AllowedProcessors();

// Whole processors' worth of time that the control group (v1 or v2, any level) grants, rounded up;
// a large number where there is no limit. More threads than that are halted in turn.
int ProcessorQuota(const std::string& root = "");

// Cores that this process may use: affinity, cores and quota considered. At least 1.
int UsableCores();

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_PROCESSORS_H_
