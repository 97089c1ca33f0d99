// A radix selection: values become unsigned keys in the same order, extended by the index so that
// no two are equal; 8 bits of the count-th largest key are found in each pass over the row. Then
// everything from it on is collected and put in order.
#include "kernels/cuda/top_k.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 512;
constexpr int kDigits = 256;

struct Shared {
  uint64_t chosen[kMostTopK];
  int counts[kDigits];
  uint64_t prefix;  // the digits that are found, in their places
  int wanted;       // of those that share the prefix
  int collected;
};

// Larger for a larger value, NaN the largest; among equal values larger for a smaller index.
__device__ __forceinline__ uint64_t KeyOf(float value, int64_t index) {
  uint32_t bits = BitsOfFloat(value == 0 ? 0.0f : value);  // both zeros are equal
  if (value != value) bits = 0x7fffffffu;
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(0xffffffffu - index);
}

// The digit at `shift` of the key that `shared->wanted` keys with this prefix are not below.
__device__ void FindDigit(const TopKArgs& args, const float* x, int shift, Shared* shared) {
  for (int i = ThreadIndex(); i < kDigits; i += kThreads) shared->counts[i] = 0;
  SyncThreads();
  const uint64_t above = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if ((key & above) == shared->prefix) AtomicAdd(&shared->counts[key >> shift & 255], 1);
  }
  SyncThreads();
  if (ThreadIndex() == 0) {
    int digit = kDigits - 1;
    int wanted = shared->wanted;
    while (shared->counts[digit] < wanted) wanted -= shared->counts[digit--];
    shared->wanted = wanted;
    shared->prefix |= static_cast<uint64_t>(digit) << shift;
  }
  SyncThreads();
}

// One block for each row.
__global__ void __launch_bounds__(kThreads) TopKKernel(TopKArgs args) {
  auto* shared = SharedMemory<Shared>();
  const float* x = args.x + BlockX() * args.x_stride;
  if (ThreadIndex() == 0) {
    shared->prefix = 0;
    shared->wanted = static_cast<int>(args.count);
    shared->collected = 0;
  }
  SyncThreads();
  for (int shift = 56; shift >= 0; shift -= 8) FindDigit(args, x, shift, shared);
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if (key >= shared->prefix) shared->chosen[AtomicAdd(&shared->collected, 1)] = key;
  }
  SyncThreads();
  // No two keys are equal, so a key's place is the number of those above it.
  for (int64_t i = ThreadIndex(); i < args.count; i += kThreads) {
    const uint64_t key = shared->chosen[i];
    int64_t place = 0;
    for (int64_t j = 0; j < args.count; ++j) place += shared->chosen[j] > key ? 1 : 0;
    const auto index = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
    args.values[BlockX() * args.count + place] = x[index];
    args.indices[BlockX() * args.count + place] = index;
  }
}

}  // namespace

void TopK(const TopKArgs& args, CUstream_st* stream) {
  Launch<TopKKernel>({args.rows}, kThreads, sizeof(Shared), stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
