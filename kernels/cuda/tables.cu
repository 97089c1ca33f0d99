#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

const OpTable kCudaTable = {
    .name = "cuda",
    .activations = Activations,
    .quantize = Quantize,
    .matmul = Matmul,
    .gather_rows = GatherRows,
    .rms_norm = RmsNorm,
    .rope = Rope,
    .store_kv = StoreKv,
    .attention = Attention,
    .silu_mul = SiluMul,
};

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
