// The functions of the table `ref`: the definition of every operation, in plain loops.
#ifndef SLUICE_KERNELS_REF_REF_H_
#define SLUICE_KERNELS_REF_REF_H_

#include "kernels/ops.h"

namespace sluice {

ActivationForm ActivationsRef(const WeightType& type);
void QuantizeRef(const QuantizeArgs& args, CUstream_st* stream);
void MatmulRef(const MatmulArgs& args, CUstream_st* stream);
void RoundBf16Ref(const RoundBf16Args& args, CUstream_st* stream);
void MatmulBf16Ref(const MatmulArgs& args, CUstream_st* stream);
void GatherRowsRef(const GatherRowsArgs& args, CUstream_st* stream);
void RmsNormRef(const RmsNormArgs& args, CUstream_st* stream);
void LayerNormRef(const LayerNormArgs& args, CUstream_st* stream);
void ScaleAddRef(const ScaleAddArgs& args, CUstream_st* stream);
void RopeRef(const RopeArgs& args, CUstream_st* stream);
void StoreKvRef(const StoreKvArgs& args, CUstream_st* stream);
void AttentionRef(const AttentionArgs& args, CUstream_st* stream);
void ActivateRef(const ActivateArgs& args, CUstream_st* stream);
void SoftcapRef(const SoftcapArgs& args, CUstream_st* stream);

}  // namespace sluice

#endif  // SLUICE_KERNELS_REF_REF_H_
