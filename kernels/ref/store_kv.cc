#include <cstring>

#include "formats/half.h"
#include "kernels/ref/ref.h"

namespace sluice {
namespace {

void Store(const float* from, int64_t count, KvType type, std::byte* to) {
  for (int64_t i = 0; i < count; ++i) {
    if (type == KvType::kF32) {
      std::memcpy(to + 4 * i, &from[i], 4);
    } else {
      const uint16_t bits = FloatToF16(from[i]);
      std::memcpy(to + 2 * i, &bits, 2);
    }
  }
}

}  // namespace

void StoreKvRef(const StoreKvArgs& args, CUstream_st*) {
  const KvLayer& layer = args.layer;
  const int64_t head_dim = layer.head_dim;
  const int64_t row_bytes = head_dim * KvTypeBytes(layer.type);
  const int64_t half_bytes = kKvBlockTokens * row_bytes;  // K, or V, of one head in a block
  for (int64_t token = args.token_begin; token < args.token_end; ++token) {
    const int64_t slot = args.slots[token];
    std::byte* block = layer.blocks + slot / kKvBlockTokens * layer.block_bytes;
    for (int64_t head = 0; head < layer.num_kv_heads; ++head) {
      std::byte* key = block + head * 2 * half_bytes + slot % kKvBlockTokens * row_bytes;
      const int64_t source = token * args.stride + head * head_dim;
      Store(args.key + source, head_dim, layer.type, key);
      Store(args.value + source, head_dim, layer.type, key + half_bytes);
    }
  }
}

}  // namespace sluice
