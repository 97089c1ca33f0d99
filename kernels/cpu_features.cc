#include "kernels/cpu_features.h"

#include <cpuid.h>

#include <cstdint>

namespace sluice {
namespace {

struct Registers {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Intel SDM volume 2, CPUID; all zero for a leaf that the processor does not know.
Registers Cpuid(unsigned int leaf) {
  Registers r;
  if (__get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

bool Bit(unsigned int value, int index) { return ((value >> index) & 1) != 0; }

// Register states that the operating system saves (XCR0). Needs OSXSAVE.
uint64_t EnabledStates() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

}  // namespace

bool CpuHasAvx2() {
  const Registers features = Cpuid(1);
  const bool osxsave = Bit(features.ecx, 27);
  const bool avx = Bit(features.ecx, 28);
  const bool fma = Bit(features.ecx, 12);
  const bool f16c = Bit(features.ecx, 29);
  if (!osxsave || !avx || !fma || !f16c) return false;
  constexpr uint64_t kSseAndAvx = 0x6;
  if ((EnabledStates() & kSseAndAvx) != kSseAndAvx) return false;
  return Bit(Cpuid(7).ebx, 5);
}

bool CpuHasAvx512() {
  if (!CpuHasAvx2()) return false;
  constexpr uint64_t kAvx512State =
      0xe6;  // SSE, AVX, mask registers, upper halves, upper registers
  if ((EnabledStates() & kAvx512State) != kAvx512State) return false;
  const Registers features = Cpuid(7);
  const bool f = Bit(features.ebx, 16);
  const bool dq = Bit(features.ebx, 17);
  const bool bw = Bit(features.ebx, 30);
  const bool vl = Bit(features.ebx, 31);
  const bool vnni = Bit(features.ecx, 11);
  return f && dq && bw && vl && vnni;
}

}  // namespace sluice
