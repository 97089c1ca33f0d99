// What the processor has and the operating system lets programs use. x86-64.
#ifndef SLUICE_KERNELS_CPU_FEATURES_H_
#define SLUICE_KERNELS_CPU_FEATURES_H_

#include <cstdint>
#include <functional>

namespace sluice {

// AVX2, FMA and F16C.
bool CpuHasAvx2();
// These and AVX-512 F, BW, DQ, VL and VNNI.
bool CpuHasAvx512();
// These and AVX512_BF16.
bool CpuHasAvx512Bf16();
// Those of CpuHasAvx512 and AMX with tiles of palette 1, int8 and bf16. The operating system must
// save the registers too, and give its permission (kernels/amx_support.h).
bool CpuHasAmx();
bool OsSavesAmx();

struct CpuidRegisters {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Where the answers come from: a processor and its operating system, or a test that makes them up.
struct CpuidSource {
  // Intel SDM volume 2, CPUID; all zero for a leaf that the processor does not know.
  std::function<CpuidRegisters(uint32_t leaf, uint32_t subleaf)> cpuid;
  // Register states that the operating system saves (XCR0). Not called without OSXSAVE, where
  // reading it is an illegal instruction.
  std::function<uint64_t()> xcr0;
};

// The functions above, of any processor.
struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;
  bool avx512_bf16 = false;
  bool amx = false;
  bool os_saves_amx = false;
};
CpuFeatures FeaturesOf(const CpuidSource& source);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_FEATURES_H_
