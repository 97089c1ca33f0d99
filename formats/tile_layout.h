// The layout of a weight tensor's bytes, version 1 (FORMAT.md, section "Tiles"): tiles of
// `tile_rows` output rows, in which rows are interleaved so that one 64-byte load holds the same
// input channels of 16 rows. CPU kernels read it as it lies.
#ifndef SLUICE_FORMATS_TILE_LAYOUT_H_
#define SLUICE_FORMATS_TILE_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "formats/status.h"
#include "formats/weight_type.h"

namespace sluice {

inline constexpr uint32_t kTileRows = 16;        // of a matrix
inline constexpr uint32_t kBlockChannels = 128;  // input channels of one block of a quantized tile

// Sizes of a tensor's tiles. A value; made by MakeTileLayout, which checks every product.
struct TileLayout {
  WeightType type;
  uint32_t tile_rows = 0;  // 16, or 1 for vectors and embeddings that are only gathered
  uint64_t rows = 0;       // of the tensor
  uint64_t cols = 0;
  uint64_t padded_cols = 0;        // to 32 for quantized kinds, to 2 for f16 and bf16
  uint64_t num_tiles = 0;          // ceil(rows / tile_rows)
  uint64_t tile_header_bytes = 0;  // scales and offsets of whole rows (int8 without groups)
  uint64_t block_bytes = 0;        // of a full block of 128 channels (quantized kinds)
  uint64_t tile_bytes = 0;
  uint64_t size_bytes = 0;  // num_tiles * tile_bytes

  // Scale groups of one row: ceil(padded_cols / group_size), 1 without groups.
  uint64_t groups_per_row() const;
  // Channels of block `block` (a multiple of 32) and scale groups in it.
  uint32_t block_channels(uint64_t block) const;
  uint32_t block_groups(uint64_t block) const;
  uint64_t num_blocks() const { return (padded_cols + kBlockChannels - 1) / kBlockChannels; }
  // Bytes before the integers of a block with `groups` scale groups.
  uint32_t block_header_bytes(uint32_t groups) const;
};

// Errors: kUnsupported for a type that is not valid or a tile larger than 16 MiB;
// kCorrupt if a size overflows 64 bits. rows, cols > 0; tile_rows 1 or 16.
Result<TileLayout> MakeTileLayout(const WeightType& type, uint64_t rows, uint64_t cols,
                                  uint32_t tile_rows);

// One row before it is put into a tile, and after it was taken out of one.
// For float kinds `values` holds the row in the stored kind's bits (f32, or f16/bf16 in the low
// 16 bits); for quantized kinds it holds the unsigned integers q.
struct RowCodes {
  uint32_t* values = nullptr;   // [cols]
  uint16_t* scales = nullptr;   // [groups_per_row] f16 bits
  uint16_t* offsets = nullptr;  // [groups_per_row] f16 bits of m, or z; unused for kNone
};

// Writes row `row_in_tile` of one tile. The tile must have been zeroed; padding stays zero.
void PackRow(const TileLayout& layout, uint32_t row_in_tile, const RowCodes& row, std::byte* tile);

// The inverse.
void UnpackRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
               const RowCodes& row);

// Row `row_in_tile` as float32: s * (q - z) with one rounding; s * q + m with two, as GGUF's
// reference does.
void DequantizeRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
                   float* out /* [cols] */);

}  // namespace sluice

#endif  // SLUICE_FORMATS_TILE_LAYOUT_H_
