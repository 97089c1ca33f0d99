#include "kernels/cpu/avx2.h"

namespace sluice {

ActivationForm ActivationsAvx2(const WeightType& type) {
  return type.quantized() ? ActivationForm::kQuantized : ActivationForm::kFloat;
}

void MatmulAvx2(const MatmulArgs& args, CUstream_st*) {
  const WeightType& type = args.layout->type;
  if (!type.quantized()) return MatmulFloatAvx2(args);
  if (type.kind >= WeightKind::kInt5) return MatmulKQuantAvx2(args);
  MatmulIntAvx2(args);
}

}  // namespace sluice
