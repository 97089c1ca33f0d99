#include <cstring>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {
namespace {

void StoreHalves(const float* from, int64_t count, std::byte* to) {
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i < 8 ? count - i : 8;
    const __m256 values =
        left == 8 ? _mm256_loadu_ps(from + i) : _mm256_maskload_ps(from + i, LaneMask(left));
    const __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    std::memcpy(to + 2 * i, &halves, static_cast<size_t>(2 * left));
  }
}

}  // namespace

void StoreKvAvx2(const StoreKvArgs& args, CUstream_st*) {
  const KvLayer& layer = args.layer;
  const int64_t head_dim = layer.head_dim;
  const int64_t row_bytes = head_dim * KvTypeBytes(layer.type);
  const int64_t half_bytes = kKvBlockTokens * row_bytes;  // K, or V, of one head in a block
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const int64_t slot = args.slots[token];
    std::byte* block = layer.blocks + slot / kKvBlockTokens * layer.block_bytes;
    for (int64_t head = 0; head < layer.num_kv_heads; ++head) {
      std::byte* to = block + head * 2 * half_bytes + slot % kKvBlockTokens * row_bytes;
      const int64_t source = token * args.stride + head * head_dim;
      for (const float* from : {args.key + source, args.value + source}) {
        if (layer.type == KvType::kF32) {
          std::memcpy(to, from, static_cast<size_t>(row_bytes));
        } else {
          StoreHalves(from, head_dim, to);
        }
        to += half_bytes;
      }
    }
  }
}

}  // namespace sluice
