// What the CUDA operations can run, and the memory that they need beside their arguments. Plain
// functions, for programs with and without CUDA.
#ifndef SLUICE_KERNELS_CUDA_SUPPORT_H_
#define SLUICE_KERNELS_CUDA_SUPPORT_H_

#include "formats/status.h"
#include "kernels/cuda/gpu_layout.h"
#include "kernels/ops.h"

namespace sluice {

// Keys that one block of threads attends to where few tokens attend to many. The partition is by
// the index of a key, so a token's result does not depend on the batch.
inline constexpr int64_t kGpuAttentionPartition = 256;
// With longer runs of tokens of one sequence (a prefill), a block attends to all keys instead.
inline constexpr int64_t kGpuMostSplitRun = 32;
inline constexpr int64_t kGpuMostHeadDim = 256;
// The first elements of AttentionArgs::scratch count, as int32, the blocks of threads that are done
// with their partitions: zero before the first call and after each. Calls with the same memory
// follow each other on one stream, and nothing else writes there.
inline constexpr int64_t kGpuAttentionCounters = int64_t{1} << 14;

// Errors: kUnsupported, for caches in other types than f16 and for heads of more than 256 values.
Status CheckGpuCache(const KvLayer& layer);

// Elements of AttentionArgs::scratch that serve calls with up to `tokens` tokens and contexts of up
// to `longest_length`; 0 where they have one partition. The counters and one token's are needed at
// least; with fewer than a call's tokens, it goes through them in turns. Beside the counters
// bounded by 64 MiB where that holds one token.
int64_t GpuAttentionScratch(int64_t tokens, int64_t num_heads, int64_t head_dim,
                            int64_t longest_length);

// One token's, without the counters.
int64_t GpuAttentionScratchOfToken(int64_t num_heads, int64_t head_dim, int64_t longest_length);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CUDA_SUPPORT_H_
