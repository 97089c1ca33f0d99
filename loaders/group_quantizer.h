// One group of values to scale, offset and integers. Private to loaders.
#ifndef SLUICE_LOADERS_GROUP_QUANTIZER_H_
#define SLUICE_LOADERS_GROUP_QUANTIZER_H_

#include <cstdint>

#include "formats/status.h"
#include "formats/weight_type.h"
#include "loaders/group_kernels.h"

namespace sluice {

// Chooses, among the scale that spans the range of `values` and some smaller ones, the one with the
// least squared error, and rounds to nearest. `offset` is written for types that have one.
// `type` is int4 or int8; values are finite; count >= 1. The result does not depend on `kernels`.
// Error: kUnsupported for values that need a scale which f16 cannot hold.
Status QuantizeGroup(const GroupKernels& kernels, const WeightType& type, const float* values,
                     int64_t count, uint8_t* codes /* [count] */, uint16_t* scale,
                     uint16_t* offset);

}  // namespace sluice

#endif  // SLUICE_LOADERS_GROUP_QUANTIZER_H_
