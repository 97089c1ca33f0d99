#include "formats/tile_layout.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "formats/checked.h"
#include "formats/half.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxTileBytes = 16u << 20;

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void StoreU16(std::byte* p, uint16_t value) { std::memcpy(p, &value, sizeof(value)); }

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

// Where the pieces of one row lie inside a tile.
class RowAddress {
 public:
  RowAddress(const TileLayout& layout, uint32_t row) : layout_(layout), row_(row) {}

  uint64_t Scale(uint64_t group) const {
    const auto [base, index, groups] = Header(group);
    (void)groups;
    return base + (uint64_t{index} * layout_.tile_rows + row_) * 2;
  }

  uint64_t Offset(uint64_t group) const {
    const auto [base, index, groups] = Header(group);
    const uint32_t size = OffsetBytes(layout_.type);
    return base + uint64_t{groups} * layout_.tile_rows * 2 +
           (uint64_t{index} * layout_.tile_rows + row_) * size;
  }

  // The byte of channel k; for int4 bit_shift tells which nibble.
  uint64_t Value(uint64_t k, uint32_t* bit_shift) const {
    const uint64_t tile_rows = layout_.tile_rows;
    *bit_shift = 0;
    switch (layout_.type.kind) {
      case WeightKind::kF32:
        return (k * tile_rows + row_) * 4;
      case WeightKind::kF16:
      case WeightKind::kBF16:
        return ((k / 2) * tile_rows + row_) * 4 + (k % 2) * 2;
      case WeightKind::kInt8:
        return Data(k) + (k % kBlockChannels / 4) * 4 * tile_rows + 4 * row_ + k % 4;
      case WeightKind::kInt4:
        *bit_shift = (k % 8) < 4 ? 0 : 4;
        return Data(k) + (k % kBlockChannels / 8) * 4 * tile_rows + 4 * row_ + k % 4;
    }
    return 0;
  }

 private:
  struct HeaderPlace {
    uint64_t base;
    uint32_t index;   // of the group in its header
    uint32_t groups;  // in that header
  };

  HeaderPlace Header(uint64_t group) const {
    if (layout_.type.group_size == 0) return {0, 0, 1};
    const uint64_t block = group * layout_.type.group_size / kBlockChannels;
    const uint32_t per_block = kBlockChannels / layout_.type.group_size;
    return {layout_.tile_header_bytes + block * layout_.block_bytes,
            static_cast<uint32_t>(group % per_block), layout_.block_groups(block)};
  }

  uint64_t Data(uint64_t k) const {
    const uint64_t block = k / kBlockChannels;
    return layout_.tile_header_bytes + block * layout_.block_bytes +
           layout_.block_header_bytes(layout_.block_groups(block));
  }

  const TileLayout& layout_;
  uint32_t row_;
};

uint64_t BlockBytes(const TileLayout& layout, uint64_t block) {
  const uint64_t bits = layout.type.kind == WeightKind::kInt4 ? 4 : 8;
  return layout.block_header_bytes(layout.block_groups(block)) +
         layout.block_channels(block) * bits / 8 * layout.tile_rows;
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
  TileLayout layout;
  layout.type = type;
  layout.tile_rows = tile_rows;
  layout.rows = rows;
  layout.cols = cols;
  layout.num_tiles = CeilDiv(rows, tile_rows);
  if (type.quantized()) {
    layout.padded_cols = RoundUp(cols, 32);
    if (type.group_size == 0) {
      layout.tile_header_bytes =
          RoundUp(uint64_t{tile_rows} * (2 + OffsetBytes(type)), 4 * tile_rows);
    }
    const uint64_t last = layout.num_blocks() - 1;
    // The size of a full block also gives the distance of blocks when there is only a short one.
    const uint64_t bits = type.kind == WeightKind::kInt4 ? 4 : 8;
    const uint32_t groups = type.group_size == 0 ? 0 : kBlockChannels / type.group_size;
    layout.block_bytes =
        layout.block_header_bytes(groups) + uint64_t{kBlockChannels} * bits / 8 * tile_rows;
    layout.tile_bytes =
        layout.tile_header_bytes + last * layout.block_bytes + BlockBytes(layout, last);
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

void PackRow(const TileLayout& layout, uint32_t row_in_tile, const RowCodes& row, std::byte* tile) {
  const RowAddress address(layout, row_in_tile);
  uint32_t shift = 0;
  for (uint64_t k = 0; k < layout.cols; ++k) {
    std::byte* target = tile + address.Value(k, &shift);
    switch (layout.type.kind) {
      case WeightKind::kF32:
        std::memcpy(target, &row.values[k], 4);
        break;
      case WeightKind::kF16:
      case WeightKind::kBF16:
        StoreU16(target, static_cast<uint16_t>(row.values[k]));
        break;
      case WeightKind::kInt8:
        *target = static_cast<std::byte>(row.values[k]);
        break;
      case WeightKind::kInt4:
        *target |= static_cast<std::byte>((row.values[k] & 15) << shift);
        break;
    }
  }
  if (!layout.type.quantized()) return;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    StoreU16(tile + address.Scale(group), row.scales[group]);
    if (layout.type.offset == WeightOffset::kZeroPoint) {
      tile[address.Offset(group)] = static_cast<std::byte>(row.offsets[group]);
    } else if (layout.type.offset == WeightOffset::kMinimum) {
      StoreU16(tile + address.Offset(group), row.offsets[group]);
    }
  }
}

void UnpackRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
               const RowCodes& row) {
  const RowAddress address(layout, row_in_tile);
  uint32_t shift = 0;
  for (uint64_t k = 0; k < layout.cols; ++k) {
    const std::byte* source = tile + address.Value(k, &shift);
    switch (layout.type.kind) {
      case WeightKind::kF32:
        std::memcpy(&row.values[k], source, 4);
        break;
      case WeightKind::kF16:
      case WeightKind::kBF16:
        row.values[k] = LoadU16(source);
        break;
      case WeightKind::kInt8:
        row.values[k] = static_cast<uint32_t>(*source);
        break;
      case WeightKind::kInt4:
        row.values[k] = (static_cast<uint32_t>(*source) >> shift) & 15;
        break;
    }
  }
  if (!layout.type.quantized()) return;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    row.scales[group] = LoadU16(tile + address.Scale(group));
    if (layout.type.offset == WeightOffset::kZeroPoint) {
      row.offsets[group] = static_cast<uint16_t>(tile[address.Offset(group)]);
    } else if (layout.type.offset == WeightOffset::kMinimum) {
      row.offsets[group] = LoadU16(tile + address.Offset(group));
    }
  }
}

void DequantizeRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
                   float* out) {
  const RowAddress address(layout, row_in_tile);
  const WeightType type = layout.type;
  uint32_t shift = 0;
  if (!type.quantized()) {
    for (uint64_t k = 0; k < layout.cols; ++k) {
      const std::byte* source = tile + address.Value(k, &shift);
      if (type.kind == WeightKind::kF32) {
        std::memcpy(&out[k], source, 4);
      } else {
        out[k] = type.kind == WeightKind::kF16 ? F16ToFloat(LoadU16(source))
                                               : Bf16ToFloat(LoadU16(source));
      }
    }
    return;
  }
  const bool int4 = type.kind == WeightKind::kInt4;
  const uint64_t group_size = type.group_size == 0 ? layout.padded_cols : type.group_size;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const float scale = F16ToFloat(LoadU16(tile + address.Scale(group)));
    int32_t zero = int4 ? 8 : 128;
    float minimum = 0;
    if (type.offset == WeightOffset::kZeroPoint) {
      zero = static_cast<int32_t>(tile[address.Offset(group)]);
    } else if (type.offset == WeightOffset::kMinimum) {
      minimum = F16ToFloat(LoadU16(tile + address.Offset(group)));
    }
    const uint64_t end = std::min(layout.cols, (group + 1) * group_size);
    for (uint64_t k = group * group_size; k < end; ++k) {
      const std::byte* source = tile + address.Value(k, &shift);
      auto q = static_cast<int32_t>(*source);
      if (int4) q = (q >> shift) & 15;
      out[k] = type.offset == WeightOffset::kMinimum ? scale * static_cast<float>(q) + minimum
                                                     : scale * static_cast<float>(q - zero);
    }
  }
}

}  // namespace sluice
