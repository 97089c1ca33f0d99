#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {

void SoftcapAvx2(const SoftcapArgs& args, CUstream_st*) {
  for (int64_t i = args.begin; i < args.end; i += 8) {
    const __m256i mask = LaneMask(args.end - i < 8 ? args.end - i : 8);
    _mm256_maskstore_ps(args.x + i, mask, SoftCap(_mm256_maskload_ps(args.x + i, mask), args.cap));
  }
}

}  // namespace sluice
