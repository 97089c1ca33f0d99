#include "kernels/cpu/avx2.h"
#include "kernels/cpu/vector_avx2.h"

namespace sluice {

void SoftcapAvx2(const SoftcapArgs& args, CUstream_st*) {
  for (int64_t i = args.begin; i < args.end; i += 8) {
    const int64_t left = args.end - i;
    StoreFirst(args.x + i, SoftCap(LoadFirst(args.x + i, left), args.cap), left);
  }
}

}  // namespace sluice
