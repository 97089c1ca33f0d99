// What the processor has and the operating system lets programs use. x86-64.
#ifndef SLUICE_KERNELS_CPU_FEATURES_H_
#define SLUICE_KERNELS_CPU_FEATURES_H_

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

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_FEATURES_H_
