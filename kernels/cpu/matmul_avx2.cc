#include "kernels/cpu/avx2.h"

namespace sluice {

ActivationForm ActivationsAvx2(const WeightType& type) {
  return type.quantized() ? ActivationForm::kQuantized : ActivationForm::kFloat;
}

void MatmulAvx2(const MatmulArgs& args, CUstream_st*) {
  if (args.layout->type.quantized()) {
    MatmulIntAvx2(args);
  } else {
    MatmulFloatAvx2(args);
  }
}

}  // namespace sluice
