// How many threads computation should use.
#ifndef SLUICE_OFFLOAD_PROCESSORS_H_
#define SLUICE_OFFLOAD_PROCESSORS_H_

#include <span>
#include <string>

namespace sluice {

// Physical cores among the processors `cpus` (numbers as the kernel's): siblings that share a core
// share its arithmetic units, so a second thread there gains nothing. Processors whose core is not
// known count each. `root` stands before /sys.
int CountCores(std::span<const int> cpus, const std::string& root = "");

// Whole processors' worth of time that the control group (v1 or v2, any level) grants, rounded up;
// a large number where there is no limit. More threads than that are halted in turn.
int ProcessorQuota(const std::string& root = "");

// Cores that this process may use: affinity, cores and quota considered. At least 1.
int UsableCores();

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_PROCESSORS_H_
