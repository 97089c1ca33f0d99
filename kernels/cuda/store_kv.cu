#include "kernels/cuda/kv_element.h"
#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 256;

// One block for each token.
__global__ void __launch_bounds__(kThreads) StoreKvKernel(StoreKvArgs args) {
  TakeTurn();
  const KvLayer& layer = args.layer;
  const int64_t token = args.token_begin + BlockX();
  const KvSlot slot = SlotOf(layer, args.slots[token]);
  const auto dim = static_cast<int>(layer.head_dim);
  const int width = static_cast<int>(layer.num_kv_heads) * dim;
  for (int i = ThreadIndex(); i < width; i += kThreads) {
    StoreKey(layer, slot, i / dim, i % dim, args.key[token * args.stride + i]);
    StoreValue(layer, slot, i / dim, i % dim, args.value[token * args.stride + i]);
  }
}

}  // namespace

void StoreKv(const StoreKvArgs& args, CUstream_st* stream) {
  Launch<StoreKvKernel>({args.token_end - args.token_begin}, kThreads, 0, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
