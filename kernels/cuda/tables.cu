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
    .matmul_several = MatmulSeveral,
    .on_device = true,
    .quantizes_results = true,
    .rotate_store = RotateStore,
    .round_f16 = RoundF16,
    .unpack_f16 = UnpackF16,
    .shift_rows = ShiftRows,
};

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
