// The largest values of a row by one block. Values become unsigned keys in the same order, extended
// by the index so that no two are equal. Each thread finds the largest of its own keys; the
// count-th largest of those is a bound that at least `count` keys of the row reach, and few more as
// a rule: these are collected and put in order. Where too many reach it (a row that favours a few
// threads), a radix selection finds the count-th largest key itself, 8 bits in each pass.
#include <cmath>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kThreads = 512;
constexpr int kDigits = 256;
constexpr int kMostCollected = 1024;
static_assert(kThreads >= kMostTopK && kThreads <= kMostCollected);

struct Shared {
  uint64_t keys[kMostCollected];  // each thread's largest; then those from the bound on
  uint64_t bound;
  int counts[kDigits];
  int wanted;  // of those that share the digits that are found
  int collected;
  float largest;
  float sums[kThreads / kWarpThreads];
};

// Larger for a larger value, NaN the largest; among equal values larger for a smaller index. Not 0.
__device__ __forceinline__ uint64_t KeyOf(float value, int64_t index) {
  uint32_t bits = BitsOfFloat(value == 0 ? 0.0f : value);  // both zeros are equal
  if (value != value) bits = 0x7fffffffu;
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(bits) << 32 | static_cast<uint32_t>(0xffffffffu - index);
}
__device__ __forceinline__ int32_t IndexOf(uint64_t key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(key));
}

__device__ __forceinline__ int KeysAbove(uint64_t key, const uint64_t* keys, int count) {
  int above = 0;
  for (int i = 0; i < count; ++i) above += keys[i] > key ? 1 : 0;
  return above;
}

// A bound that at least args.count keys reach. Since count <= width, so many threads have a key.
__device__ void FindBound(const TopKArgs& args, const float* x, Shared* shared) {
  uint64_t largest = 0;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if (key > largest) largest = key;
  }
  shared->keys[ThreadIndex()] = largest;
  SyncThreads();
  if (KeysAbove(largest, shared->keys, kThreads) == args.count - 1) shared->bound = largest;
  SyncThreads();
}

// The digit at `shift` of the key that `shared->wanted` keys with these digits above are not below.
__device__ void FindDigit(const TopKArgs& args, const float* x, int shift, Shared* shared) {
  for (int i = ThreadIndex(); i < kDigits; i += kThreads) shared->counts[i] = 0;
  SyncThreads();
  const uint64_t above = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if ((key & above) == shared->bound) AtomicAdd(&shared->counts[key >> shift & 255], 1);
  }
  SyncThreads();
  if (ThreadIndex() == 0) {
    int digit = kDigits - 1;
    int wanted = shared->wanted;
    while (shared->counts[digit] < wanted) wanted -= shared->counts[digit--];
    shared->wanted = wanted;
    shared->bound |= static_cast<uint64_t>(digit) << shift;
  }
  SyncThreads();
}

// The count-th largest key.
__device__ void FindExactBound(const TopKArgs& args, const float* x, Shared* shared) {
  if (ThreadIndex() == 0) {
    shared->bound = 0;
    shared->wanted = static_cast<int>(args.count);
  }
  SyncThreads();
  for (int shift = 56; shift >= 0; shift -= 8) FindDigit(args, x, shift, shared);
}

// All keys from the bound on, as far as there is room, and their number.
__device__ int Collect(const TopKArgs& args, const float* x, Shared* shared) {
  if (ThreadIndex() == 0) shared->collected = 0;
  SyncThreads();
  const uint64_t bound = shared->bound;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    const uint64_t key = KeyOf(x[i], i);
    if (key < bound) continue;
    const int at = AtomicAdd(&shared->collected, 1);
    if (at < kMostCollected) shared->keys[at] = key;
  }
  SyncThreads();
  const int collected = shared->collected;
  SyncThreads();
  return collected;
}

// One block for each row.
__global__ void __launch_bounds__(kThreads) TopKKernel(TopKArgs args) {
  TakeTurn();
  auto* shared = SharedMemory<Shared>();
  const float* x = args.x + BlockX() * args.x_stride;
  FindBound(args, x, shared);
  int collected = Collect(args, x, shared);
  if (collected > kMostCollected) {
    FindExactBound(args, x, shared);
    collected = Collect(args, x, shared);
  }
  // No two keys are equal, so a key's place is the number of those above it.
  for (int i = ThreadIndex(); i < collected; i += kThreads) {
    const uint64_t key = shared->keys[i];
    const int place = KeysAbove(key, shared->keys, collected);
    if (place >= args.count) continue;
    const int32_t index = IndexOf(key);
    args.values[BlockX() * args.count + place] = x[index];
    args.indices[BlockX() * args.count + place] = index;
    if (place == 0) shared->largest = x[index];
  }
  SyncThreads();
  float sum = 0;
  for (int64_t i = ThreadIndex(); i < args.width; i += kThreads) {
    sum += expf(x[i] - shared->largest);
  }
  sum = BlockSum(sum, shared->sums);
  if (ThreadIndex() == 0) args.weight_sums[BlockX()] = sum;
}

}  // namespace

void TopK(const TopKArgs& args, CUstream_st* stream) {
  Launch<TopKKernel>({args.rows}, kThreads, sizeof(Shared), stream, args);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
