// What this machine offers, as far as planning needs it.
#ifndef SLUICE_OFFLOAD_SYSTEM_H_
#define SLUICE_OFFLOAD_SYSTEM_H_

#include <cstdint>
#include <string>

namespace sluice {

// Memory that this process may still take without swapping: what the kernel calls available, or
// what its control group (v1 or v2, any level) leaves, whichever is less.
// `root` stands before /proc and /sys; tests give a folder of their own.
uint64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_SYSTEM_H_
