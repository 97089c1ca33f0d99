#include "kernels/cpu_features.h"

#include <cpuid.h>

#include <cstdint>

namespace sluice {
namespace {

struct Registers {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Intel SDM volume 2, CPUID; all zero for a leaf that the processor does not know.
Registers Cpuid(unsigned int leaf, unsigned int subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
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

bool CpuHasAvx512Bf16() {
  if (!CpuHasAvx512()) return false;
  // Leaf 7 says how many subleaves it has.
  return Cpuid(7).eax >= 1 && Bit(Cpuid(7, 1).eax, 5);
}

bool CpuHasAmx() {
  if (!CpuHasAvx512()) return false;
  const Registers features = Cpuid(7);
  const bool bf16 = Bit(features.edx, 22);
  const bool tile = Bit(features.edx, 24);
  const bool int8 = Bit(features.edx, 25);
  if (!bf16 || !tile || !int8) return false;
  // Leaf 1D: palette 1 has at least 8 registers of 16 rows of 64 bytes.
  constexpr unsigned int kTileInformation = 0x1d;
  if (Cpuid(kTileInformation).eax < 1) return false;
  const Registers palette = Cpuid(kTileInformation, 1);
  return palette.ebx >> 16 >= 8 && (palette.ebx & 0xffff) >= 64 && (palette.ecx & 0xffff) >= 16;
}

bool OsSavesAmx() {
  constexpr uint64_t kTileStates = 3u << 17;  // configuration and data
  return Bit(Cpuid(1).ecx, 27) && (EnabledStates() & kTileStates) == kTileStates;
}

}  // namespace sluice
