// What stands between the products of a layer and its attention, in one launch: a thread for each
// pair of a query or a key that is rotated, for each other element of a key, and for each of a
// value.
#include <cmath>

#include "kernels/cuda/kv_element.h"
#include "kernels/cuda/launchers.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 128;

// Threads of one token, in the order in which they come.
struct RotateStoreWork {
  RotateStoreArgs args;
  int query_pairs, key_pairs, key_rest, values;
};

struct Pair {
  float low, high;
};

// To the bit as `rope`.
__device__ __forceinline__ Pair Rotated(const RopeArgs& args, int64_t token, const float* head,
                                        int pair) {
  const float angle = static_cast<float>(args.positions[token]) * args.frequencies[pair];
  const float cosine = cosf(angle) * args.magnitude;
  const float sine = sinf(angle) * args.magnitude;
  const float low = head[pair];
  const float high = head[pair + args.dim / 2];
  return {low * cosine - high * sine, high * cosine + low * sine};
}

__device__ __forceinline__ void RotateQuery(const RopeArgs& args, int64_t token, int i) {
  const int half = static_cast<int>(args.dim) / 2;
  float* head = args.x + token * args.x_stride + int64_t{i / half} * args.head_dim;
  const Pair rotated = Rotated(args, token, head, i % half);
  head[i % half] = rotated.low;
  head[i % half + half] = rotated.high;
}

__global__ void __launch_bounds__(kThreads) RotateStoreKernel(RotateStoreWork work) {
  TakeTurn();
  const RopeArgs& key = work.args.key;
  const StoreKvArgs& store = work.args.store;
  const int64_t token = store.token_begin + BlockX();
  int i = static_cast<int>(BlockY()) * kThreads + ThreadIndex();
  if (i < work.query_pairs) return RotateQuery(work.args.query, token, i);
  i -= work.query_pairs;

  const KvSlot slot = SlotOf(store.layer, store.slots[token]);
  const int dim = static_cast<int>(key.dim);
  const int half = dim / 2;
  if (i < work.key_pairs) {
    const int head = i / half;
    const float* x = key.x + token * key.x_stride + head * key.head_dim;
    const Pair rotated = Rotated(key, token, x, i % half);
    StoreKey(store.layer, slot, head, i % half, rotated.low);
    StoreKey(store.layer, slot, head, i % half + half, rotated.high);
    return;
  }
  i -= work.key_pairs;
  if (i < work.key_rest) {
    const int rest = static_cast<int>(key.head_dim) - dim;
    const int at = dim + i % rest;
    const float* x = key.x + token * key.x_stride + i / rest * key.head_dim;
    StoreKey(store.layer, slot, i / rest, at, x[at]);
    return;
  }
  i -= work.key_rest;
  if (i >= work.values) return;
  const int head_dim = static_cast<int>(store.layer.head_dim);
  StoreValue(store.layer, slot, i / head_dim, i % head_dim, store.value[token * store.stride + i]);
}

}  // namespace

void RotateStore(const RotateStoreArgs& args, CUstream_st* stream) {
  const RopeArgs& key = args.key;
  const RotateStoreWork work = {args, static_cast<int>(args.query.heads * (args.query.dim / 2)),
                                static_cast<int>(key.heads * (key.dim / 2)),
                                static_cast<int>(key.heads * (key.head_dim - key.dim)),
                                static_cast<int>(key.heads * key.head_dim)};
  const int64_t threads = work.query_pairs + work.key_pairs + work.key_rest + work.values;
  Launch<RotateStoreKernel>(
      {args.store.token_end - args.store.token_begin, (threads + kThreads - 1) / kThreads},
      kThreads, 0, stream, work);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
