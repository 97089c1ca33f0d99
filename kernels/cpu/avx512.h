// What the table `avx512` has of its own; its other slots are those of `avx2`. Only to be called
// where CpuHasAvx512.
#ifndef SLUICE_KERNELS_CPU_AVX512_H_
#define SLUICE_KERNELS_CPU_AVX512_H_

#include "kernels/ops.h"

namespace sluice {

void AttentionAvx512(const AttentionArgs& args, CUstream_st* stream);
void CombineAttentionAvx512(const AttentionArgs& args, CUstream_st* stream);
void QuantizeAvx512(const QuantizeArgs& args, CUstream_st* stream);
void ActivateAvx512(const ActivateArgs& args, CUstream_st* stream);
void MatmulAvx512(const MatmulArgs& args, CUstream_st* stream);
void MatmulKQuantAvx512(const MatmulArgs& args);  // int5, Q4_K, Q5_K, Q6_K
void MatmulFloatAvx512(const MatmulArgs& args);   // f32, f16, bf16

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AVX512_H_
