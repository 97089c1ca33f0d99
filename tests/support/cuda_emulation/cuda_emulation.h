// CUDA on the host, for tests: the functions of kernels/cuda/intrinsics.h, with the same meaning.
// Each thread of a block is a fiber that runs until it waits for others. What is undefined on a GPU
// is made to show: shared memory starts as NaN and ends where the launch says (the address
// sanitizer sees the next byte), a copy arrives only at the wait for it and spoils its target until
// then, threads and blocks run in an order that the test chooses, and a barrier or exchange that
// not all threads reach ends the program with a report.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_CUDA_EMULATION_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_CUDA_EMULATION_H_

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "formats/half.h"

struct CUstream_st;

namespace sluice::cuda_emulation {

inline constexpr int kWarpThreads = 32;

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

// The order in which threads that could run do, and blocks. Results must not depend on it. Warp by
// warp: each warp runs until it can no further before the next one does anything, so that one is as
// far ahead of the others as it can be.
enum class Order {
  kAscending,
  kDescending,
  kShuffled,
  kWarpByWarp,
  kWarpByWarpDescending,
};
inline constexpr Order kAllOrders[] = {Order::kAscending, Order::kDescending, Order::kShuffled,
                                       Order::kWarpByWarp, Order::kWarpByWarpDescending};
void SetOrder(Order order);

// Where the running thread is.
struct ThreadPlace {
  int thread = 0;
  int block_threads = 0;
  int64_t block_x = 0, block_y = 0, block_z = 0;
};
const ThreadPlace& Place();

inline int ThreadIndex() { return Place().thread; }
inline int BlockThreads() { return Place().block_threads; }
inline int64_t BlockX() { return Place().block_x; }
inline int64_t BlockY() { return Place().block_y; }
inline int64_t BlockZ() { return Place().block_z; }
inline int Lane() { return ThreadIndex() % kWarpThreads; }
inline int Warp() { return ThreadIndex() / kWarpThreads; }

void SyncThreads();
void WaitForEarlierWork();
inline void LetLaterWorkStart() {}
inline void TakeTurn() { WaitForEarlierWork(); }
std::byte* SharedBytes();
// Of the largest GPU, so that launchers that choose by it choose the most.
inline size_t SharedBytesOfMultiprocessor() { return 228 << 10; }
template <typename T>
T* SharedMemory() {
  return reinterpret_cast<T*>(SharedBytes());
}

// Waits until all lanes of the warp called it with the same `what`; the last one runs
// combine(context, values), values[lane] being what each gave.
using Combine = void (*)(void* const* values);
void Together(const char* what, void* value, Combine combine);

inline void SyncWarp() {
  int nothing = 0;
  Together("SyncWarp", &nothing, [](void* const*) {});
}

template <typename T>
T Shuffle(T value, int lane) {
  struct Exchange {
    T value;
    int lane;
    T result;
  } exchange = {value, lane, value};
  Together("Shuffle", &exchange, [](void* const* values) {
    for (int i = 0; i < kWarpThreads; ++i) {
      auto* mine = static_cast<Exchange*>(values[i]);
      mine->result = static_cast<Exchange*>(values[mine->lane % kWarpThreads])->value;
    }
  });
  return exchange.result;
}
template <typename T>
T ShuffleXor(T value, int mask) {
  return Shuffle(value, Lane() ^ mask);
}
uint32_t Ballot(bool predicate);

// Threads of a block take turns only where they wait, so this is atomic. Outside of shared memory
// it tells other blocks that this one's work is there: all of its threads must have fenced.
int AtomicAdd(int* address, int value);
void ThreadFence();
inline int CountBits(uint32_t bits) { return std::popcount(bits); }

void CopyAsync(void* shared, const void* global, size_t size_bytes, bool valid);
inline void CopyAsync16(void* shared, const void* global, bool valid = true) {
  CopyAsync(shared, global, 16, valid);
}
inline void CopyAsync4(void* shared, const void* global, bool valid = true) {
  CopyAsync(shared, global, 4, valid);
}
void CommitCopies();
void WaitForCopies(int pending);
template <int kPending>
void WaitCopies() {
  WaitForCopies(kPending);
}

void LoadMatrices(uint32_t (&out)[4], const void* row);
void LoadMatricesTransposed(uint32_t (&out)[4], const void* row);
uint32_t Transposed(uint32_t halves);
void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
inline void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                    const int32_t (&d)[2]) {
  for (int i = 0; i < 4; ++i) c[i] = d[i % 2];
  MmaU8S8(c, a, b0, b1);
}
void MmaF16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void MmaTf32(float (&c)[4], const float (&a)[4], float b0, float b1);

float ToTf32(float value);
inline float HalfToFloat(uint16_t bits) { return F16ToFloat(bits); }
inline uint16_t FloatToHalf(float value) { return FloatToF16(value); }
inline float FloatFromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t BitsOfFloat(float value) { return std::bit_cast<uint32_t>(value); }
inline int RoundToInt(float value) { return static_cast<int>(std::lrint(value)); }

// What was started: once for each kernel and size. Names are as the compiler writes them. Each
// thread of one that `overlaps` has to wait for earlier work.
struct LaunchRecord {
  std::string_view kernel;
  int threads;
  size_t shared_bytes;
  bool overlaps = false;
};
const std::vector<LaunchRecord>& Launches();

// Called before and after a kernel runs, with its stream: for devices that are late with earlier
// work, and whose memory is out of the host's reach.
using LaunchHook = std::function<void(CUstream_st*)>;
void SetLaunchHooks(LaunchHook before, LaunchHook after);
// A kernel's first block runs as if it had started early: `hide` is called before it, `show` when
// all of its threads wait for earlier work. Copies that were started before have what they met.
void SetEarlierWorkHooks(std::function<void()> hide, std::function<void()> show);

// Runs the whole grid before it returns.
using Body = void (*)(void (*kernel)(), const void* args);
void RunGrid(const LaunchRecord& record, const Grid& grid, CUstream_st* stream, Body body,
             void (*kernel)(), const void* args);

template <typename Args>
void LaunchNamed(std::string_view name, void (*kernel)(Args), const Grid& grid, int threads,
                 size_t shared_bytes, CUstream_st* stream, const std::type_identity_t<Args>& args,
                 bool overlaps = false) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  const Body body = [](void (*erased)(), const void* bytes) {
    reinterpret_cast<void (*)(Args)>(erased)(*static_cast<const Args*>(bytes));
  };
  RunGrid({name, threads, shared_bytes, overlaps}, grid, stream, body,
          reinterpret_cast<void (*)()>(kernel), &args);
}

template <typename Kernel>
struct KernelArgs;
template <typename Args>
struct KernelArgs<void (*)(Args)> {
  using Type = Args;
};

template <auto kKernel>
void Launch(const Grid& grid, int threads, size_t shared_bytes, CUstream_st* stream,
            const typename KernelArgs<decltype(kKernel)>::Type& args) {
  LaunchNamed(__PRETTY_FUNCTION__, kKernel, grid, threads, shared_bytes, stream, args, true);
}

}  // namespace sluice::cuda_emulation

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_CUDA_EMULATION_H_
