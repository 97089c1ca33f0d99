// Blocks of weights as float32.
#ifndef SLUICE_KERNELS_REF_DEQUANTIZE_H_
#define SLUICE_KERNELS_REF_DEQUANTIZE_H_

#include "formats/tile_layout.h"

namespace sluice {

// Channels [128 block, 128 block + count) of a tile of 16 rows; returns count, at most 128, without
// padding. Values as DequantizeRow has them.
int64_t DequantizeBlock(const TileLayout& layout, const std::byte* tile, uint64_t block,
                        float (*out)[kTileRows] /* [count][16] */);

}  // namespace sluice

#endif  // SLUICE_KERNELS_REF_DEQUANTIZE_H_
