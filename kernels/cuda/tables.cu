#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

const OpTable kCudaTable = {
    .name = "cuda",
    .activations = Activations,
    .quantize = Quantize,
    .matmul = Matmul,
    .gather_rows = GatherRows,
    .rms_norm = RmsNorm,
    .layer_norm = LayerNorm,
    .scale_add = ScaleAdd,
    .rope = Rope,
    .store_kv = StoreKv,
    .attention = Attention,
    .activate = Activate,
    .softcap = Softcap,
    .top_k = TopK,
    .on_device = true,
};

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
