#include <cmath>

#include "kernels/ref/ref.h"

namespace sluice {

void SoftcapRef(const SoftcapArgs& args, CUstream_st*) {
  for (int64_t i = args.begin; i < args.end; ++i) {
    args.x[i] = args.cap * std::tanh(args.x[i] / args.cap);
  }
}

}  // namespace sluice
