// How a tile's results leave the registers. Only for files compiled for AVX-512; everything is
// local to the file that includes it (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX512_H_
#define SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX512_H_

#include <immintrin.h>

#include <algorithm>

#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

// The 16 rows of tile `tile` of one token from their sums: with the bias, then with what is there.
[[maybe_unused]] inline void StoreToken(const MatmulArgs& args, int64_t tile, int64_t token,
                                        __m512 sum) {
  const int64_t row = tile * kTileRows;
  const int64_t rows = std::min<int64_t>(kTileRows, args.rows - row);
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
  float* y = args.y + token * args.y_stride + row;
  if (args.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, args.bias + row));
  if (args.add_to_y) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
  _mm512_mask_storeu_ps(y, mask, sum);
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX512_H_
