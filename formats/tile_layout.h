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
// (the K types have one header for two of them, a super-block of kSuperBlockChannels)

// Sizes of a tensor's tiles. A value; made by MakeTileLayout, which checks every product.
struct TileLayout {
  WeightType type;
  uint32_t tile_rows = 0;  // 16, or 1 for vectors and embeddings that are only gathered
  uint64_t rows = 0;       // of the tensor
  uint64_t cols = 0;
  uint64_t padded_cols = 0;        // to 32 for quantized kinds, to 2 for f16 and bf16
  uint64_t num_tiles = 0;          // ceil(rows / tile_rows)
  uint64_t tile_header_bytes = 0;  // scales and offsets of whole rows (int8 without groups)
  uint64_t block_bytes = 0;        // of a full block of 128 channels; K types: of a super-block
  uint64_t tile_bytes = 0;
  uint64_t size_bytes = 0;  // num_tiles * tile_bytes

  // Scale groups of one row: ceil(padded_cols / group_size), 1 without groups.
  uint64_t groups_per_row() const;
  // Channels of block `block` (a multiple of 32) and scale groups in it.
  uint32_t block_channels(uint64_t block) const;
  uint32_t block_groups(uint64_t block) const;
  // Blocks of 128 channels, for K types too.
  uint64_t num_blocks() const { return (padded_cols + kBlockChannels - 1) / kBlockChannels; }
  // Of one row; 0 but for K types.
  uint64_t num_super_blocks() const {
    return type.has_super_blocks() ? padded_cols / kSuperBlockChannels : 0;
  }
  // Bytes before the integers of a block with `groups` scale groups; K types: of a super-block.
  uint32_t block_header_bytes(uint32_t groups) const;
  // Bytes of the integers of `channels` channels (a multiple of 32) of a tile.
  uint64_t integer_bytes(uint64_t channels) const {
    return channels * IntegerBits(type.kind) / 8 * tile_rows;
  }
};

// Errors: kUnsupported for a type that is not valid, a row of a K type that is not whole
// super-blocks, or a tile larger than 16 MiB;
// kCorrupt if a size overflows 64 bits. rows, cols > 0; tile_rows 1 or 16.
Result<TileLayout> MakeTileLayout(const WeightType& type, uint64_t rows, uint64_t cols,
                                  uint32_t tile_rows);

// One row before it is put into a tile, and after it was taken out of one.
// For float kinds `values` holds the row in the stored kind's bits (f32, or f16/bf16 in the low
// 16 bits); for quantized kinds it holds the unsigned integers q.
struct RowCodes {
  uint32_t* values = nullptr;  // [cols]
  // [groups_per_row] f16 bits; Q4_K, Q5_K: an integer of 6 bits; Q6_K: the byte of an int8.
  uint16_t* scales = nullptr;
  // [groups_per_row] f16 bits of m, or z; Q4_K, Q5_K: an integer of 6 bits; unused for kNone.
  uint16_t* offsets = nullptr;
  // [num_super_blocks] f16 bits, K types only: what the integers in `scales` (d) and `offsets`
  // (dmin, Q4_K and Q5_K) are multiplied with.
  uint16_t* super_scales = nullptr;
  uint16_t* super_offsets = nullptr;
};

// Writes row `row_in_tile` of one tile. The tile must have been zeroed; padding stays zero.
void PackRow(const TileLayout& layout, uint32_t row_in_tile, const RowCodes& row, std::byte* tile);

// The inverse.
void UnpackRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
               const RowCodes& row);

// Row `row_in_tile` as float32: s * (q - z) with one rounding; s * q + m with two, as GGUF's
// reference does. (The products of K types, d * scale * q and dmin * offset, are exact in float32.)
void DequantizeRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
                   float* out /* [cols] */);

}  // namespace sluice

#endif  // SLUICE_FORMATS_TILE_LAYOUT_H_
