// The matrix product of the table `amx`, computed by the emulation.
#ifndef SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_
#define SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_

#include "kernels/ops.h"

namespace sluice::test {

// Every quantized type and number of tokens, those that the table leaves to `avx512` too. Needs
// AVX-512 for what is not a tile's.
void MatmulEmulatedAmx(const MatmulArgs& args, CUstream_st* stream);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_
