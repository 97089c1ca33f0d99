// What the table `amx` has of its own; its other slots are those of `avx512`. Only to be called
// where AmxOfThisMachine (kernels/amx_support.h) says so.
#ifndef SLUICE_KERNELS_CPU_AMX_AMX_H_
#define SLUICE_KERNELS_CPU_AMX_AMX_H_

#include "kernels/ops.h"

namespace sluice {

void MatmulAmx(const MatmulArgs& args, CUstream_st* stream);
// Only where CpuHasAvx512Bf16 too.
void MatmulBf16Amx(const MatmulArgs& args, CUstream_st* stream);

// Products of known numbers: whether the registers do what the manual says. Nothing but tile
// instructions and comparisons, so that it may run in a forked child. Whatever the processor does
// not do ends in an illegal instruction.
bool TryTiles();

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_AMX_H_
