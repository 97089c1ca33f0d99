// Which function fills which slot. This file is compiled for every processor.
#include "kernels/ref/ref.h"
#include "kernels/select.h"

namespace sluice {

const OpTable kRefTable = {
    .name = "ref",
    .activations = ActivationsRef,
    .quantize = QuantizeRef,
    .matmul = MatmulRef,
    .gather_rows = GatherRowsRef,
    .rms_norm = RmsNormRef,
    .rope = RopeRef,
    .store_kv = StoreKvRef,
    .attention = AttentionRef,
    .silu_mul = SiluMulRef,
};

}  // namespace sluice
