#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/avx2.h"
#include "kernels/cpu/lanes_avx2.h"
#include "kernels/ref/ref.h"

namespace sluice {

void AttentionAvx2(const AttentionArgs& args, CUstream_st* stream) {
  if (args.layer.head_dim > kLargestSplitDim) return AttentionRef(args, stream);
  AttendItems<Lanes>(args);
}

void CombineAttentionAvx2(const AttentionArgs& args, CUstream_st*) { CombineItems<Lanes>(args); }

}  // namespace sluice
