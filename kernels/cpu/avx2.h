// The functions of the table `avx2`; its other slots are ref's. Only to be called where CpuHasAvx2.
#ifndef SLUICE_KERNELS_CPU_AVX2_H_
#define SLUICE_KERNELS_CPU_AVX2_H_

#include "kernels/ops.h"

namespace sluice {

ActivationForm ActivationsAvx2(const WeightType& type);
void QuantizeAvx2(const QuantizeArgs& args, CUstream_st* stream);
void MatmulAvx2(const MatmulArgs& args, CUstream_st* stream);
void MatmulIntAvx2(const MatmulArgs& args);     // int8, int4
void MatmulKQuantAvx2(const MatmulArgs& args);  // int5, Q4_K, Q5_K, Q6_K
void MatmulFloatAvx2(const MatmulArgs& args);   // f32, f16, bf16
void RmsNormAvx2(const RmsNormArgs& args, CUstream_st* stream);
void LayerNormAvx2(const LayerNormArgs& args, CUstream_st* stream);
void RopeAvx2(const RopeArgs& args, CUstream_st* stream);
void StoreKvAvx2(const StoreKvArgs& args, CUstream_st* stream);
void AttentionAvx2(const AttentionArgs& args, CUstream_st* stream);
void CombineAttentionAvx2(const AttentionArgs& args, CUstream_st* stream);
void ActivateAvx2(const ActivateArgs& args, CUstream_st* stream);
void SoftcapAvx2(const SoftcapArgs& args, CUstream_st* stream);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AVX2_H_
