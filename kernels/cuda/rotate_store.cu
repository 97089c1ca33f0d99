// What stands between the products of a layer and its attention, in one launch: a warp for each
// head of the queries, the keys and the values of a token.
#include <cmath>

#include "kernels/cuda/kv_element.h"
#include "kernels/cuda/launchers.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpThreads;

// A head's values into shared memory, normalized with a weight: to the bit as `rms_norm`, whose
// block has a warp for each 128 values and adds up the warps' sums.
__device__ __forceinline__ void LoadHead(const float* x, int dim, const float* weight, float eps,
                                         float* head) {
  constexpr int kWarpValues = kQuad * kWarpThreads;
  float factor = 1;
  if (weight != nullptr) {
    float squares = 0;
    for (int first = 0; first < dim; first += kWarpValues) {
      float of_warp = 0;
      const Quad values = LoadQuad(x, first / kQuad + Lane(), dim);
#pragma unroll
      for (float value : values.value) of_warp = fmaf(value, value, of_warp);
      squares += WarpSum(of_warp);
    }
    factor = 1.0f / sqrtf(squares / static_cast<float>(dim) + eps);
  }
  for (int i = Lane(); i < dim; i += kWarpThreads) {
    head[i] = weight == nullptr ? x[i] : x[i] * factor * weight[i];
  }
  SyncWarp();
}

// Rotates what LoadHead left, to the bit as `rope`; store(i, value) takes each value.
template <typename StoreValue>
__device__ __forceinline__ void Rotate(const RopeArgs& args, int64_t token, const float* head,
                                       const StoreValue& store) {
  const int half = static_cast<int>(args.dim) / 2;
  const auto position = static_cast<float>(args.positions[token]);
  for (int pair = Lane(); pair < half; pair += kWarpThreads) {
    const float angle = position * args.frequencies[pair];
    const float cosine = cosf(angle) * args.magnitude;
    const float sine = sinf(angle) * args.magnitude;
    const float low = head[pair];
    const float high = head[pair + half];
    store(pair, low * cosine - high * sine);
    store(pair + half, high * cosine + low * sine);
  }
  const auto head_dim = static_cast<int>(args.head_dim);
  for (int i = 2 * half + Lane(); i < head_dim; i += kWarpThreads) store(i, head[i]);
}

__global__ void __launch_bounds__(kThreads) RotateStoreKernel(RotateStoreArgs args) {
  TakeTurn();
  const StoreKvArgs& store = args.store;
  const int64_t token = store.token_begin + BlockX();
  const auto dim = static_cast<int>(store.layer.head_dim);
  const auto queries = static_cast<int>(args.query.heads);
  const auto keys = static_cast<int>(args.key.heads);
  const int index = static_cast<int>(BlockY()) * kWarps + Warp();
  float* head = SharedMemory<float>() + Warp() * dim;
  if (index < queries) {
    float* x = args.query.x + token * args.query.x_stride + index * dim;
    LoadHead(x, dim, args.query_norm, args.norm_eps, head);
    Rotate(args.query, token, head, [&](int i, float value) { x[i] = value; });
    return;
  }
  const KvSlot slot = SlotOf(store.layer, store.slots[token]);
  if (index < queries + keys) {
    const int kv_head = index - queries;
    LoadHead(store.key + token * store.stride + kv_head * dim, dim, args.key_norm, args.norm_eps,
             head);
    Rotate(args.key, token, head,
           [&](int i, float value) { StoreKey(store.layer, slot, kv_head, i, value); });
    return;
  }
  const int kv_head = index - queries - keys;
  if (kv_head >= keys) return;
  const float* x = store.value + token * store.stride + kv_head * dim;
  for (int i = Lane(); i < dim; i += kWarpThreads) {
    StoreValue(store.layer, slot, kv_head, i, x[i]);
  }
}

}  // namespace

void RotateStore(const RotateStoreArgs& args, CUstream_st* stream) {
  const int64_t heads = args.query.heads + 2 * args.key.heads;
  const size_t shared_bytes = static_cast<size_t>(kWarps * args.key.head_dim) * sizeof(float);
  Launch<RotateStoreKernel>(
      {args.store.token_end - args.store.token_begin, (heads + kWarps - 1) / kWarps}, kThreads,
      shared_bytes, stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
