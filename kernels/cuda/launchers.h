// The CUDA launchers, by operation (kernels/ops.h). Every pointer of the arguments is one of device
// memory, but those of the arguments themselves and `layout`. They start work on the stream and
// return; an error stays with the CUDA runtime until the stream is asked (offload/device.h).
#ifndef SLUICE_KERNELS_CUDA_LAUNCHERS_H_
#define SLUICE_KERNELS_CUDA_LAUNCHERS_H_

#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

// The table "cuda". What it can run: kernels/cuda/support.h.
extern const OpTable kCudaTable;

ActivationForm Activations(const WeightType& type);
void Quantize(const QuantizeArgs& args, CUstream_st* stream);
void Matmul(const MatmulArgs& args, CUstream_st* stream);
void MatmulSeveral(const MatmulArgs* args, int64_t count, CUstream_st* stream);
void GatherRows(const GatherRowsArgs& args, CUstream_st* stream);
void RmsNorm(const RmsNormArgs& args, CUstream_st* stream);
void LayerNorm(const LayerNormArgs& args, CUstream_st* stream);
void ScaleAdd(const ScaleAddArgs& args, CUstream_st* stream);
void Rope(const RopeArgs& args, CUstream_st* stream);
void StoreKv(const StoreKvArgs& args, CUstream_st* stream);
void RotateStore(const RotateStoreArgs& args, CUstream_st* stream);
void Attention(const AttentionArgs& args, CUstream_st* stream);
void Activate(const ActivateArgs& args, CUstream_st* stream);
void Softcap(const SoftcapArgs& args, CUstream_st* stream);
void TopK(const TopKArgs& args, CUstream_st* stream);
void RoundF16(const RoundF16Args& args, CUstream_st* stream);
void UnpackF16(const UnpackF16Args& args, CUstream_st* stream);
void ShiftRows(const ShiftRowsArgs& args, CUstream_st* stream);

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_LAUNCHERS_H_
