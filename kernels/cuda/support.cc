#include "kernels/cuda/support.h"

#include <string>

namespace sluice {

Status CheckGpuCache(const KvLayer& layer) {
  if (layer.type != KvType::kF16) {
    return Status(ErrorCode::kUnsupported, "the KV cache of a GPU is in f16");
  }
  if (layer.head_dim > kGpuMostHeadDim) {
    return Status(ErrorCode::kUnsupported,
                  "the CUDA attention knows heads of at most 256 values, not " +
                      std::to_string(layer.head_dim));
  }
  return Status();
}

int64_t GpuAttentionScratch(int64_t tokens, int64_t num_heads, int64_t head_dim,
                            int64_t longest_length, int64_t longest_run) {
  if (longest_run > kGpuMostSplitRun) return 0;
  const int64_t splits = (longest_length + kGpuAttentionPartition - 1) / kGpuAttentionPartition;
  // Of each partition the weighted values, the largest score and the sum of weights.
  return splits <= 1 ? 0 : tokens * num_heads * splits * (head_dim + 2);
}

}  // namespace sluice
