// One element of the paged cache.
#ifndef SLUICE_KERNELS_CUDA_KV_ELEMENT_H_
#define SLUICE_KERNELS_CUDA_KV_ELEMENT_H_

#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

// The slot of a token, and where its head's K begins there; V begins kKvBlockTokens * head_dim
// elements after.
struct KvSlot {
  std::byte* block;
  int in_block;
};
__device__ __forceinline__ KvSlot SlotOf(const KvLayer& layer, int64_t slot) {
  return {layer.blocks + slot / kKvBlockTokens * layer.block_bytes,
          static_cast<int>(slot % kKvBlockTokens)};
}

__device__ __forceinline__ void StoreKey(const KvLayer& layer, const KvSlot& slot, int head, int i,
                                         float value) {
  const auto dim = static_cast<int>(layer.head_dim);
  const int at = (2 * head * static_cast<int>(kKvBlockTokens) + slot.in_block) * dim + i;
  if (layer.type == KvType::kF32) {
    reinterpret_cast<float*>(slot.block)[at] = value;
  } else {
    reinterpret_cast<uint16_t*>(slot.block)[at] = FloatToHalf(value);
  }
}
__device__ __forceinline__ void StoreValue(const KvLayer& layer, const KvSlot& slot, int head,
                                           int i, float value) {
  // A value lies as the key of the block's next matrix.
  const auto dim = static_cast<int>(layer.head_dim);
  StoreKey(layer, slot, head, i + static_cast<int>(kKvBlockTokens) * dim, value);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_KV_ELEMENT_H_
