// Whether this process may use Intel AMX. A processor can advertise it where a hypervisor, a kernel
// or a sandbox does not let it run, so it is tried, in a child, before anything else uses it.
#ifndef SLUICE_KERNELS_AMX_SUPPORT_H_
#define SLUICE_KERNELS_AMX_SUPPORT_H_

#include <cstdint>

namespace sluice {

enum class AmxState : uint8_t {
  kUsable,
  kAbsent,             // the processor does not advertise it
  kNotEnabled,         // the operating system does not save its registers
  kPermissionRefused,  // arch_prctl(ARCH_REQ_XCOMP_PERM)
  kCrashed,            // the trial ended without an answer: a signal, as a rule
  kTimedOut,
  kWrongResult,
  kNotTried,  // no child could be started
};

// "usable", or a clause that says why not: "the kernel refuses the permission for AMX's registers".
const char* Describe(AmxState state);

// The questions, in the order in which they are asked; a negative answer ends the probe.
struct AmxProbe {
  bool (*advertised)();
  bool (*enabled)();
  bool (*request_permission)();  // in a forked child, and after the trial for the process itself
  bool (*trial)();               // in that child; true: the result is right
  int time_limit_ms;
};

// Whatever the functions do, the caller's process goes on.
AmxState ProbeAmx(const AmxProbe& probe);

// Of this machine, probed when first asked; the permission holds for all threads from then on. Any
// thread. Threads set up their registers themselves (kernels/cpu/amx/tile.h).
AmxState AmxOfThisMachine();

}  // namespace sluice

#endif  // SLUICE_KERNELS_AMX_SUPPORT_H_
