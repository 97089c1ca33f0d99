// Which function fills which slot. This file is compiled for every processor.
#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"
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
    .layer_norm = LayerNormRef,
    .scale_add = ScaleAddRef,
    .rope = RopeRef,
    .store_kv = StoreKvRef,
    .attention = AttentionRef,
    .activate = ActivateRef,
    .softcap = SoftcapRef,
    .round_bf16 = RoundBf16Ref,
    .matmul_bf16 = MatmulBf16Ref,
};

const OpTable kAvx2Table = {
    .name = "avx2",
    .activations = ActivationsAvx2,
    .quantize = QuantizeAvx2,
    .matmul = MatmulAvx2,
    .gather_rows = GatherRowsRef,
    .rms_norm = RmsNormAvx2,
    .layer_norm = LayerNormAvx2,
    .scale_add = ScaleAddRef,
    .rope = RopeAvx2,
    .store_kv = StoreKvAvx2,
    .attention = AttentionAvx2,
    .combine_attention = CombineAttentionAvx2,
    .activate = ActivateAvx2,
    .softcap = SoftcapAvx2,
};

const OpTable kAvx512Table = {
    .name = "avx512",
    .activations = ActivationsAvx2,
    .quantize = QuantizeAvx512,
    .matmul = MatmulAvx512,
    .gather_rows = GatherRowsRef,
    .rms_norm = RmsNormAvx2,
    .layer_norm = LayerNormAvx2,
    .scale_add = ScaleAddRef,
    .rope = RopeAvx2,
    .store_kv = StoreKvAvx2,
    .attention = AttentionAvx512,
    .combine_attention = CombineAttentionAvx512,
    .activate = ActivateAvx512,
    .softcap = SoftcapAvx2,
    .round_bf16 = RoundBf16Avx512,
    .matmul_bf16 = MatmulBf16Avx512,
};

const OpTable kAmxTable = [] {
  OpTable table = kAvx512Table;  // of this file, so it is there
  table.name = "amx";
  table.matmul = MatmulAmx;
  table.matmul_bf16 = MatmulBf16Amx;
  return table;
}();

}  // namespace sluice
