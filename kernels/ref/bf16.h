// Where a channel of a token lies among activations in bf16.
#ifndef SLUICE_KERNELS_REF_BF16_H_
#define SLUICE_KERNELS_REF_BF16_H_

#include "kernels/ops.h"

namespace sluice {

inline int64_t Bf16Place(const Bf16Activations& x, int64_t token, int64_t channel) {
  const int64_t steps = x.padded_cols / kBf16Channels;
  const int64_t step = token / kBf16Tokens * steps + channel / kBf16Channels;
  return (step * kBf16Tokens + token % kBf16Tokens) * kBf16Channels + channel % kBf16Channels;
}

}  // namespace sluice

#endif  // SLUICE_KERNELS_REF_BF16_H_
