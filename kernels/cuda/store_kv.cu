#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

__device__ void Store(float value, KvType type, int64_t index, std::byte* to) {
  if (type == KvType::kF32) {
    reinterpret_cast<float*>(to)[index] = value;
  } else {
    reinterpret_cast<uint16_t*>(to)[index] = FloatToHalf(value);
  }
}

// One block for each token.
__global__ void __launch_bounds__(kThreads) StoreKvKernel(StoreKvArgs args) {
  TakeTurn();
  const KvLayer& layer = args.layer;
  const int64_t token = args.token_begin + BlockX();
  const int64_t slot = args.slots[token];
  std::byte* block = layer.blocks + slot / kKvBlockTokens * layer.block_bytes;
  const int64_t matrix = kKvBlockTokens * layer.head_dim;  // K, or V, of one head
  for (int64_t i = ThreadIndex(); i < layer.num_kv_heads * layer.head_dim; i += kThreads) {
    const int64_t head = i / layer.head_dim;
    const int64_t at =
        head * 2 * matrix + slot % kKvBlockTokens * layer.head_dim + i % layer.head_dim;
    Store(args.key[token * args.stride + i], layer.type, at, block);
    Store(args.value[token * args.stride + i], layer.type, at + matrix, block);
  }
}

}  // namespace

void StoreKv(const StoreKvArgs& args, CUstream_st* stream) {
  Launch<StoreKvKernel>({args.token_end - args.token_begin}, kThreads, 0, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
