// Everything that a kernel asks of the machine beyond plain C++: where it runs, barriers, exchanges
// within a warp, copies that complete later, tensor cores. By nvcc these are CUDA's instructions;
// by a host compiler they are those of tests/support/cuda_emulation, which compute the same, so
// that each .cu file runs without a GPU. Blocks have one dimension and a multiple of 32 threads,
// and all lanes of a warp take part in what is said of a warp.
//
// Fragments of the tensor cores are those of the PTX ISA, sections "Matrix Fragments for mma": with
// g = lane / 4 and t = lane % 4, an accumulator of 16 x 8 is {(g, 2t), (g, 2t+1), (g+8, 2t),
// (g+8, 2t+1)}.
#ifndef SLUICE_KERNELS_CUDA_INTRINSICS_H_
#define SLUICE_KERNELS_CUDA_INTRINSICS_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__

#include <cuda_fp16.h>

#include <atomic>

#define SLUICE_CUDA_NAMESPACE cuda

namespace sluice::cuda {

inline constexpr int kWarpThreads = 32;
// What a block may take without asking for more.
inline constexpr size_t kPlainSharedBytes = 48 << 10;
// What it may take at most on every GPU from compute capability 8.0 on.
inline constexpr size_t kMostSharedBytes = 99 << 10;

// Blocks of a launch.
struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

__device__ __forceinline__ int ThreadIndex() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int BlockThreads() { return static_cast<int>(blockDim.x); }
__device__ __forceinline__ int64_t BlockX() { return blockIdx.x; }
__device__ __forceinline__ int64_t BlockY() { return blockIdx.y; }
__device__ __forceinline__ int64_t BlockZ() { return blockIdx.z; }
__device__ __forceinline__ int Lane() { return ThreadIndex() % kWarpThreads; }
__device__ __forceinline__ int Warp() { return ThreadIndex() / kWarpThreads; }

__device__ __forceinline__ void SyncThreads() { __syncthreads(); }
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }

// Kernels of one stream overlap (programmatic dependent launch, compute capability 9.0 and later):
// blocks of the next kernel may be there as soon as all blocks of this one said
// LetLaterWorkStart(), or ended. Until WaitForEarlierWork() they find nothing that earlier kernels
// write as it shall be, and write nothing: weights alone may be read. Each thread of each kernel
// waits, also one that has nothing to do, because a kernel that waited is one whose end says that
// all before it has ended.
__device__ __forceinline__ void WaitForEarlierWork() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void LetLaterWorkStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Both, for kernels with nothing to do before.
__device__ __forceinline__ void TakeTurn() {
  LetLaterWorkStart();
  WaitForEarlierWork();
}

// The block's shared memory, of the size given at the launch; not initialized.
template <typename T>
__device__ __forceinline__ T* SharedMemory() {
  extern __shared__ __align__(128) unsigned char sluice_shared_memory[];
  return reinterpret_cast<T*>(sluice_shared_memory);
}

template <typename T>
__device__ __forceinline__ T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ __forceinline__ uint32_t Ballot(bool predicate) {
  return __ballot_sync(0xffffffffu, predicate);
}

__device__ __forceinline__ int AtomicAdd(int* address, int value) {
  return atomicAdd(address, value);
}
// Orders this thread's accesses to global memory before and after, for all blocks. How blocks of a
// launch pass on what they wrote: all threads fence, the block meets, one thread adds to a counter;
// the block that finds the count complete meets, its threads fence, and read.
__device__ __forceinline__ void ThreadFence() { __threadfence(); }
__device__ __forceinline__ int CountBits(uint32_t bits) { return __popc(bits); }

// Starts a copy to shared memory of 16 (4) bytes, both addresses multiples of that; zeros if not
// `valid` (the source is not read then). Complete for this thread after WaitCopies, for others
// after a barrier too.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CopyAsync4(void* shared, const void* global, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 4 : 0)
               : "memory");
}
// Ends a group of copies; waits until at most `kPending` groups of this thread are on their way.
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit values from shared memory: lane i gives the address of row i % 8
// of matrix i / 8 (a multiple of 16), and gets of each matrix row lane / 4, columns 2 (lane % 4)
// and the next. Transposed: column lane / 4, rows 2 (lane % 4) and the next.
__device__ __forceinline__ void LoadMatrices(uint32_t (&out)[4], const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&out)[4], const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}
// The transpose of an 8 x 8 matrix of 16-bit values: each lane has of row lane / 4 columns
// 2 (lane % 4) and the next, before and after.
__device__ __forceinline__ uint32_t Transposed(uint32_t halves) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(halves));
  return out;
}

// Volatile, all three: all lanes must be there (.aligned), so that a product must not move to where
// only some of them use it; and equal ones must not become one where their rate is measured.
//
// c += a b: 16 x 32 of u8 by 32 x 8 of s8, exact.
__device__ __forceinline__ void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c = a b + d: both rows of a lane begin at d, one number for each of its columns.
__device__ __forceinline__ void MmaU8S8(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1, const int32_t (&d)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %11, %10, %11};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(d[0]), "r"(d[1]));
}
// c += a b: 16 x 16 of f16 by 16 x 8 of f16.
__device__ __forceinline__ void MmaF16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c += a b: 16 x 8 of tf32 by 8 x 8 of tf32; a and b as ToTf32 made them.
__device__ __forceinline__ void MmaTf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}

// Rounded to the 11 significant bits of tf32, halves away from zero.
__device__ __forceinline__ float ToTf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}
__device__ __forceinline__ float HalfToFloat(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ uint16_t FloatToHalf(float value) {
  return __half_as_ushort(__float2half_rn(value));
}
__device__ __forceinline__ float FloatFromBits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t BitsOfFloat(float value) { return __float_as_uint(value); }
// To the nearest integer, ties to even.
__device__ __forceinline__ int RoundToInt(float value) { return __float2int_rn(value); }

template <typename Kernel>
struct KernelArgs;
template <typename Args>
struct KernelArgs<void (*)(Args)> {
  using Type = Args;
};

// The kernels of the program, in a list, so that all can be loaded before the first one starts.
struct ListedKernel {
  explicit ListedKernel(const void* its_kernel) : kernel(its_kernel), next(First()) {
    First() = this;
  }
  static const ListedKernel*& First() {
    static const ListedKernel* first = nullptr;
    return first;
  }
  const void* kernel;
  const ListedKernel* next;
};
template <auto kKernel>
struct Listed {
  static inline const ListedKernel entry{reinterpret_cast<const void*>(kKernel)};
};

// Shared memory of a multiprocessor of the GPU that is asked first.
inline size_t SharedBytesOfMultiprocessor() {
  static const size_t bytes = [] {
    int device = 0;
    int value = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device) !=
            cudaSuccess) {
      return kMostSharedBytes;
    }
    return static_cast<size_t>(value);
  }();
  return bytes;
}

// Whether launches overlap: LoadKernels says so where the GPU can.
inline std::atomic<bool> launches_overlap = false;

// Starts a kernel of one argument. An error stays with the CUDA runtime until the stream is asked.
template <auto kKernel>
void Launch(const Grid& grid, int threads, size_t shared_bytes, CUstream_st* stream,
            const typename KernelArgs<decltype(kKernel)>::Type& args) {
  static_cast<void>(&Listed<kKernel>::entry);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > kPlainSharedBytes) {
    // Always the same: a bound that a later launch lowered would be below what a recording has.
    cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(kMostSharedBytes));
  }
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                        static_cast<unsigned>(grid.z));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = launches_overlap.load(std::memory_order_relaxed) ? 1 : 0;
  cudaLaunchKernelEx(&config, kKernel, args);
}

}  // namespace sluice::cuda

#else

#define SLUICE_CUDA_NAMESPACE cuda_emulation
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

// Under tests/support/cuda_emulation, which only the emulated build has on its include path.
#include "cuda_emulation.h"

#endif

#endif  // SLUICE_KERNELS_CUDA_INTRINSICS_H_
