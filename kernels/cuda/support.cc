#include "kernels/cuda/support.h"

#include <algorithm>
#include <string>

namespace sluice {

Status CheckGpuCache(const KvLayer& layer) {
  if (layer.type != KvType::kF16) {
    return Status(ErrorCode::kUnsupported, "the KV cache of a GPU is in f16");
  }
  if (layer.head_dim > kGpuMostHeadDim) {
    return Status(ErrorCode::kUnsupported,
                  "the CUDA attention knows heads of at most 256 values, not " +
                      std::to_string(layer.head_dim) + "; the processor has no such bound");
  }
  return Status();
}

int64_t GpuAttentionScratchOfToken(int64_t num_heads, int64_t head_dim, int64_t longest_length) {
  const int64_t splits = (longest_length + kGpuAttentionPartition - 1) / kGpuAttentionPartition;
  // Of each partition the weighted values, in fours, the largest score and the sum of weights.
  return splits <= 1 ? 0 : num_heads * splits * ((head_dim + 3) / 4 * 4 + 2);
}

int64_t GpuAttentionScratch(int64_t tokens, int64_t num_heads, int64_t head_dim,
                            int64_t longest_length) {
  constexpr int64_t kMost = int64_t{16} << 20;
  const int64_t one = GpuAttentionScratchOfToken(num_heads, head_dim, longest_length);
  if (one == 0) return 0;
  return kGpuAttentionCounters + one * std::min(tokens, std::max<int64_t>(1, kMost / one));
}

}  // namespace sluice
