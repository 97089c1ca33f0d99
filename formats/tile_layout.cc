#include "formats/tile_layout.h"

#include <algorithm>

#include "formats/checked.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxTileBytes = 16u << 20;

uint32_t OffsetBytes(const WeightType& type) {
  switch (type.offset) {
    case WeightOffset::kNone:
      return 0;
    case WeightOffset::kZeroPoint:
      return 1;
    case WeightOffset::kMinimum:
      return 2;
  }
  return 0;
}

uint64_t BlockBytes(const TileLayout& layout, uint64_t block) {
  return layout.block_header_bytes(layout.block_groups(block)) +
         layout.integer_bytes(layout.block_channels(block));
}

// Sizes of the tiles of a quantized kind, from type, tile_rows and cols.
void SetIntegerSizes(TileLayout* layout) {
  const WeightType& type = layout->type;
  const uint64_t tile_rows = layout->tile_rows;
  layout->padded_cols = RoundUp(layout->cols, 32);
  if (type.has_super_blocks()) {
    layout->block_bytes =
        layout->block_header_bytes(0) + layout->integer_bytes(kSuperBlockChannels);
    layout->tile_bytes = layout->num_super_blocks() * layout->block_bytes;
    return;
  }
  if (type.group_size == 0) {
    layout->tile_header_bytes = RoundUp(tile_rows * (2 + OffsetBytes(type)), 4 * tile_rows);
  }
  const uint64_t last = layout->num_blocks() - 1;
  // The size of a full block also gives the distance of blocks when there is only a short one.
  const uint32_t groups = type.group_size == 0 ? 0 : kBlockChannels / type.group_size;
  layout->block_bytes = layout->block_header_bytes(groups) + layout->integer_bytes(kBlockChannels);
  layout->tile_bytes =
      layout->tile_header_bytes + last * layout->block_bytes + BlockBytes(*layout, last);
}

}  // namespace

uint64_t TileLayout::groups_per_row() const {
  return type.group_size == 0 ? 1 : CeilDiv(padded_cols, type.group_size);
}

uint32_t TileLayout::block_channels(uint64_t block) const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(kBlockChannels, padded_cols - block * kBlockChannels));
}

uint32_t TileLayout::block_groups(uint64_t block) const {
  if (type.group_size == 0) return 0;
  return static_cast<uint32_t>(CeilDiv(block_channels(block), type.group_size));
}

uint32_t TileLayout::block_header_bytes(uint32_t groups) const {
  // d and dmin, then 8 scales and 8 minima of 6 bits; d and 16 scales of 8 bits, rounded up.
  if (type.has_super_blocks()) return (type.kind == WeightKind::kQ6K ? 20 : 16) * tile_rows;
  if (groups == 0) return 0;
  return static_cast<uint32_t>(
      RoundUp(uint64_t{groups} * tile_rows * (2 + OffsetBytes(type)), 4 * tile_rows));
}

Result<TileLayout> MakeTileLayout(const WeightType& type, uint64_t rows, uint64_t cols,
                                  uint32_t tile_rows) {
  if (!IsValid(type)) {
    return Status(ErrorCode::kUnsupported, "weight type " + WeightTypeName(type) + " is not known");
  }
  if (rows == 0 || cols == 0 || (tile_rows != 1 && tile_rows != kTileRows)) {
    return Status(ErrorCode::kCorrupt, "a tensor of " + std::to_string(rows) + " x " +
                                           std::to_string(cols) + " in tiles of " +
                                           std::to_string(tile_rows) + " rows is not possible");
  }
  // Larger rows could not be cut into pieces; the bound also keeps the arithmetic below in range.
  if (cols > kMaxTileBytes) {
    return Status(ErrorCode::kUnsupported,
                  "a row of " + std::to_string(cols) + " values is too long");
  }
  if (type.has_super_blocks() && cols % kSuperBlockChannels != 0) {
    return Status(ErrorCode::kUnsupported, "rows of " + std::to_string(cols) + " values are not " +
                                               "whole super-blocks of 256 (" +
                                               WeightTypeName(type) + ")");
  }
  TileLayout layout;
  layout.type = type;
  layout.tile_rows = tile_rows;
  layout.rows = rows;
  layout.cols = cols;
  layout.num_tiles = CeilDiv(rows, tile_rows);
  if (type.quantized()) {
    SetIntegerSizes(&layout);
  } else {
    const bool wide = type.kind == WeightKind::kF32;
    layout.padded_cols = wide ? cols : RoundUp(cols, 2);
    layout.tile_bytes = layout.padded_cols * tile_rows * (wide ? 4 : 2);
  }
  if (layout.tile_bytes > kMaxTileBytes) {
    return Status(ErrorCode::kUnsupported,
                  "a tile of " + std::to_string(layout.tile_bytes) + " bytes is too large");
  }
  if (!CheckedMul(layout.num_tiles, layout.tile_bytes, &layout.size_bytes)) {
    return Status(ErrorCode::kCorrupt, "the size of " + std::to_string(rows) + " x " +
                                           std::to_string(cols) + " values overflows");
  }
  return layout;
}

}  // namespace sluice
