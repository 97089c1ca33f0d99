// The end of a matmul: bias, what was in y, and the store of sixteen rows. Local to each file, for
// the reason given in vector_avx2.h.
#ifndef SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX2_H_
#define SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX2_H_

#include "kernels/cpu/vector_avx2.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

// Rows of tile `tile` of one token from their sums, rows 0 to 7 and 8 to 15.
[[maybe_unused]] inline void StoreTile(const MatmulArgs& args, int64_t tile, int64_t token,
                                       __m256 low, __m256 high) {
  const int64_t first = tile * kTileRows;
  const __m256 sums[2] = {low, high};
  for (int64_t half = 0; half < 2; ++half) {
    const int64_t row = first + 8 * half;
    const int64_t rows = args.rows - row;
    if (rows <= 0) return;
    float* y = args.y + token * args.y_stride + row;
    __m256 sum = sums[half];
    if (args.bias != nullptr) sum = _mm256_add_ps(sum, LoadFirst(args.bias + row, rows));
    if (args.add_to_y) sum = _mm256_add_ps(sum, LoadFirst(y, rows));
    StoreFirst(y, sum, rows);
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_TILE_OUTPUT_AVX2_H_
