// Rows in and out of tiles: FORMAT.md, section "Tiles", one number at a time.
#include <algorithm>
#include <cstring>

#include "formats/half.h"
#include "formats/tile_layout.h"

namespace sluice {
namespace {

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void StoreU16(std::byte* p, uint16_t value) { std::memcpy(p, &value, sizeof(value)); }

// Some bits of one byte of a tile.
struct Bits {
  uint64_t at;
  uint32_t shift;
  uint32_t mask;  // after the shift

  uint32_t Get(const std::byte* tile) const {
    return (std::to_integer<uint32_t>(tile[at]) >> shift) & mask;
  }
  void Set(std::byte* tile, uint32_t value) const {
    tile[at] |= static_cast<std::byte>((value & mask) << shift);
  }
};

// Where the numbers of one row lie inside a tile.
class RowAddress {
 public:
  RowAddress(const TileLayout& layout, uint32_t row)
      : layout_(layout), tile_rows_(layout.tile_rows), row_(row) {
    const uint32_t bits = IntegerBits(layout.type.kind);
    high_bits_ = bits > 4 && bits < 8 ? bits - 4 : 0;
    unit_channels_ = high_bits_ != 0 ? 32 / high_bits_ : 8;
    plane_bytes_ = high_bits_ != 0 ? 4 * tile_rows_ : 0;
  }

  // The byte of channel k of a float kind.
  uint64_t Float(uint64_t k) const {
    if (layout_.type.kind == WeightKind::kF32) return (k * tile_rows_ + row_) * 4;
    return ((k / 2) * tile_rows_ + row_) * 4 + (k % 2) * 2;
  }

  // The integer of channel k: all of it, or its low four bits.
  Bits Low(uint64_t k) const {
    const uint64_t inner = k % BlockChannels();
    if (layout_.type.kind == WeightKind::kInt8) return {Data(k) + Slot(inner, 4), 0, 255};
    const uint64_t place = Unit(inner) + plane_bytes_ + Slot(inner % unit_channels_, 8);
    return {Data(k) + place, (k % 8) < 4 ? 0u : 4u, 15};
  }

  // The bits above those.
  bool has_high() const { return high_bits_ != 0; }
  Bits High(uint64_t k) const {
    const uint64_t inner = k % BlockChannels();
    const auto step = static_cast<uint32_t>(inner % unit_channels_ / 4);
    return {Data(k) + Unit(inner) + Slot(inner % 4, 4), high_bits_ * step, (1u << high_bits_) - 1};
  }

  // The f16 scale of a group, and its f16 minimum or zero point. Not for K types.
  uint64_t Scale(uint64_t group) const {
    const HeaderPlace header = Header(group);
    return header.base + (uint64_t{header.index} * tile_rows_ + row_) * 2;
  }
  uint64_t Offset(uint64_t group) const {
    const HeaderPlace header = Header(group);
    const uint64_t size = layout_.type.offset == WeightOffset::kMinimum ? 2 : 1;
    return header.base + uint64_t{header.groups} * tile_rows_ * 2 +
           (uint64_t{header.index} * tile_rows_ + row_) * size;
  }

  // d and dmin of a super-block.
  uint64_t SuperScale(uint64_t block) const { return block * layout_.block_bytes + 2 * row_; }
  uint64_t SuperOffset(uint64_t block) const { return SuperScale(block) + 2 * tile_rows_; }
  // Q6_K: the int8 of a group.
  uint64_t ByteScale(uint64_t group) const {
    return group / 16 * layout_.block_bytes + (2 + group % 16) * tile_rows_ + row_;
  }
  // Q4_K, Q5_K: the byte with the low four bits of a group's scale and minimum, and the one with
  // the upper two; `shift` tells where the latter lie, those of the scale first.
  uint64_t LowSixBits(uint64_t group) const {
    return group / 8 * layout_.block_bytes + (4 + group % 8) * tile_rows_ + row_;
  }
  Bits HighSixBits(uint64_t group) const {
    return {group / 8 * layout_.block_bytes + (12 + group % 8 / 2) * tile_rows_ + row_,
            group % 2 == 0 ? 0u : 4u, 15};
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

  // Channels that share a header.
  uint64_t BlockChannels() const {
    return layout_.type.has_super_blocks() ? kSuperBlockChannels : kBlockChannels;
  }

  // The first integer of channel k's block.
  uint64_t Data(uint64_t k) const {
    const uint64_t block = k / BlockChannels();
    const uint32_t groups = layout_.type.has_super_blocks() ? 0 : layout_.block_groups(block);
    return layout_.tile_header_bytes + block * layout_.block_bytes +
           layout_.block_header_bytes(groups);
  }

  // A unit is a plane of high bits, if any, and the nibbles of its channels.
  uint64_t Unit(uint64_t inner) const {
    return inner / unit_channels_ * (plane_bytes_ + unit_channels_ / 8 * 4 * tile_rows_);
  }

  // The byte of a channel where each 4 R bytes hold `per_load` channels of all rows.
  uint64_t Slot(uint64_t channel, uint64_t per_load) const {
    return channel / per_load * 4 * tile_rows_ + 4 * row_ + channel % 4;
  }

  const TileLayout& layout_;
  const uint64_t tile_rows_;
  const uint64_t row_;
  uint32_t high_bits_;
  uint64_t unit_channels_;
  uint64_t plane_bytes_;
};

uint32_t GetInteger(const RowAddress& address, const std::byte* tile, uint64_t k) {
  const uint32_t low = address.Low(k).Get(tile);
  return address.has_high() ? low | address.High(k).Get(tile) << 4 : low;
}

void PackSuperBlocks(const TileLayout& layout, const RowAddress& address, const RowCodes& row,
                     std::byte* tile) {
  const bool six_bits = layout.type.offset == WeightOffset::kMinimum;
  for (uint64_t block = 0; block < layout.num_super_blocks(); ++block) {
    StoreU16(tile + address.SuperScale(block), row.super_scales[block]);
    if (six_bits) StoreU16(tile + address.SuperOffset(block), row.super_offsets[block]);
  }
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const uint32_t scale = row.scales[group];
    if (!six_bits) {
      tile[address.ByteScale(group)] = static_cast<std::byte>(scale);
      continue;
    }
    const uint32_t offset = row.offsets[group];
    tile[address.LowSixBits(group)] = static_cast<std::byte>((scale & 15) | (offset & 15) << 4);
    address.HighSixBits(group).Set(tile, ((scale >> 4) & 3) | ((offset >> 4) & 3) << 2);
  }
}

void UnpackSuperBlocks(const TileLayout& layout, const RowAddress& address, const std::byte* tile,
                       const RowCodes& row) {
  const bool six_bits = layout.type.offset == WeightOffset::kMinimum;
  for (uint64_t block = 0; block < layout.num_super_blocks(); ++block) {
    row.super_scales[block] = LoadU16(tile + address.SuperScale(block));
    if (six_bits) row.super_offsets[block] = LoadU16(tile + address.SuperOffset(block));
  }
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    if (!six_bits) {
      row.scales[group] = std::to_integer<uint16_t>(tile[address.ByteScale(group)]);
      continue;
    }
    const auto low = std::to_integer<uint32_t>(tile[address.LowSixBits(group)]);
    const uint32_t high = address.HighSixBits(group).Get(tile);
    row.scales[group] = static_cast<uint16_t>((low & 15) | (high & 3) << 4);
    row.offsets[group] = static_cast<uint16_t>(low >> 4 | high >> 2 << 4);
  }
}

// What makes values of a group's integers: scale * (q - zero), or scale * q + minimum.
struct GroupParameters {
  float scale;
  int32_t zero;
  float minimum;
};

GroupParameters ParametersOf(const TileLayout& layout, const RowAddress& address,
                             const std::byte* tile, uint64_t group) {
  const WeightType& type = layout.type;
  const int32_t middle = MiddleOf(type.kind);
  if (type.kind == WeightKind::kQ6K) {
    const float d = F16ToFloat(LoadU16(tile + address.SuperScale(group / 16)));
    const auto scale = std::to_integer<int8_t>(tile[address.ByteScale(group)]);
    return {d * static_cast<float>(scale), middle, 0};
  }
  if (type.has_super_blocks()) {
    const float d = F16ToFloat(LoadU16(tile + address.SuperScale(group / 8)));
    const float dmin = F16ToFloat(LoadU16(tile + address.SuperOffset(group / 8)));
    const auto low = std::to_integer<uint32_t>(tile[address.LowSixBits(group)]);
    const uint32_t high = address.HighSixBits(group).Get(tile);
    return {d * static_cast<float>((low & 15) | (high & 3) << 4), 0,
            -(dmin * static_cast<float>(low >> 4 | high >> 2 << 4))};
  }
  const float scale = F16ToFloat(LoadU16(tile + address.Scale(group)));
  switch (type.offset) {
    case WeightOffset::kZeroPoint:
      return {scale, std::to_integer<int32_t>(tile[address.Offset(group)]), 0};
    case WeightOffset::kMinimum:
      return {scale, 0, F16ToFloat(LoadU16(tile + address.Offset(group)))};
    default:
      return {scale, middle, 0};
  }
}

}  // namespace

void PackRow(const TileLayout& layout, uint32_t row_in_tile, const RowCodes& row, std::byte* tile) {
  const RowAddress address(layout, row_in_tile);
  if (!layout.type.quantized()) {
    for (uint64_t k = 0; k < layout.cols; ++k) {
      const uint64_t size = layout.type.kind == WeightKind::kF32 ? 4 : 2;
      std::memcpy(tile + address.Float(k), &row.values[k], size);  // little-endian
    }
    return;
  }
  for (uint64_t k = 0; k < layout.cols; ++k) {
    address.Low(k).Set(tile, row.values[k]);
    if (address.has_high()) address.High(k).Set(tile, row.values[k] >> 4);
  }
  if (layout.type.has_super_blocks()) return PackSuperBlocks(layout, address, row, tile);
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
  if (!layout.type.quantized()) {
    for (uint64_t k = 0; k < layout.cols; ++k) {
      row.values[k] = 0;
      const uint64_t size = layout.type.kind == WeightKind::kF32 ? 4 : 2;
      std::memcpy(&row.values[k], tile + address.Float(k), size);
    }
    return;
  }
  for (uint64_t k = 0; k < layout.cols; ++k) row.values[k] = GetInteger(address, tile, k);
  if (layout.type.has_super_blocks()) return UnpackSuperBlocks(layout, address, tile, row);
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    row.scales[group] = LoadU16(tile + address.Scale(group));
    if (layout.type.offset == WeightOffset::kZeroPoint) {
      row.offsets[group] = std::to_integer<uint16_t>(tile[address.Offset(group)]);
    } else if (layout.type.offset == WeightOffset::kMinimum) {
      row.offsets[group] = LoadU16(tile + address.Offset(group));
    }
  }
}

void DequantizeRow(const TileLayout& layout, const std::byte* tile, uint32_t row_in_tile,
                   float* out) {
  const RowAddress address(layout, row_in_tile);
  const WeightType type = layout.type;
  if (!type.quantized()) {
    for (uint64_t k = 0; k < layout.cols; ++k) {
      const std::byte* source = tile + address.Float(k);
      if (type.kind == WeightKind::kF32) {
        std::memcpy(&out[k], source, 4);
      } else {
        out[k] = type.kind == WeightKind::kF16 ? F16ToFloat(LoadU16(source))
                                               : Bf16ToFloat(LoadU16(source));
      }
    }
    return;
  }
  const uint64_t group_size = type.group_size == 0 ? layout.padded_cols : type.group_size;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const GroupParameters p = ParametersOf(layout, address, tile, group);
    const uint64_t end = std::min(layout.cols, (group + 1) * group_size);
    for (uint64_t k = group * group_size; k < end; ++k) {
      const auto q = static_cast<int32_t>(GetInteger(address, tile, k));
      out[k] = type.offset == WeightOffset::kMinimum ? p.scale * static_cast<float>(q) + p.minimum
                                                     : p.scale * static_cast<float>(q - p.zero);
    }
  }
}

}  // namespace sluice
