// The matrix products of the table `amx`, computed by the emulation.
#ifndef SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_
#define SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_

#include "kernels/ops.h"

namespace sluice::test {

// Every quantized type and number of tokens, those that the table leaves to `avx512` too. Needs
// AVX-512 for what is not a tile's.
void MatmulEmulatedAmx(const MatmulArgs& args, CUstream_st* stream);

// Every type and number of tokens. Needs AVX-512 with BF16.
void MatmulBf16EmulatedAmx(const MatmulArgs& args, CUstream_st* stream);

// The table `amx` for processors without it: what is a tile's there is emulated, for any number of
// tokens. Ends the program where a kernel leaves its thread's registers configured.
const OpTable& EmulatedAmxTable();

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_AMX_EMULATION_MATMUL_EMULATED_AMX_H_
