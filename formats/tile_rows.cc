// Rows in and out of tiles: FORMAT.md, section "Tiles".
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

uint32_t LoadU32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void StoreU32(std::byte* p, uint32_t value) { std::memcpy(p, &value, sizeof(value)); }

constexpr uint64_t kMaxUnit = 32;

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
      : layout_(layout),
        tile_rows_(layout.tile_rows),
        row_(row),
        bits_(IntegerBits(layout.type.kind)) {
    high_bits_ = bits_ > 4 && bits_ < 8 ? bits_ - 4 : 0;
    unit_channels_ = bits_ == 8 ? 4 : high_bits_ != 0 ? 32 / high_bits_ : 8;
  }

  // The byte of channel k of a float kind.
  uint64_t Float(uint64_t k) const {
    if (layout_.type.kind == WeightKind::kF32) return (k * tile_rows_ + row_) * 4;
    return ((k / 2) * tile_rows_ + row_) * 4 + (k % 2) * 2;
  }

  // Integers come in units of channels (8; 4 of eight bits; 32 or 16 with upper bits), of which
  // each row has words of 4 bytes, 4 R bytes apart: upper bits, if any, then nibbles or bytes.
  uint64_t unit_channels() const { return unit_channels_; }
  void StoreUnit(const uint32_t* q, uint64_t k, std::byte* tile) const {
    std::byte* at = tile + Unit(k);
    if (bits_ == 8) return StoreU32(at, q[0] | q[1] << 8 | q[2] << 16 | q[3] << 24);
    if (high_bits_ != 0) {
      uint32_t plane = 0;
      for (uint32_t i = 0; i < unit_channels_; ++i) {
        plane |= (q[i] >> 4) << (high_bits_ * (i / 4) + 8 * (i % 4));
      }
      StoreU32(at, plane);
      at += 4 * tile_rows_;
    }
    for (uint64_t i = 0; i < unit_channels_; i += 8, at += 4 * tile_rows_) {
      uint32_t word = 0;
      for (uint32_t j = 0; j < 4; ++j)
        word |= ((q[i + j] & 15) | (q[i + j + 4] & 15) << 4) << 8 * j;
      StoreU32(at, word);
    }
  }
  void LoadUnit(const std::byte* tile, uint64_t k, uint32_t* q) const {
    const std::byte* at = tile + Unit(k);
    if (bits_ == 8) {
      const uint32_t word = LoadU32(at);
      for (uint32_t i = 0; i < 4; ++i) q[i] = word >> 8 * i & 255;
      return;
    }
    uint32_t plane = 0;
    if (high_bits_ != 0) {
      plane = LoadU32(at);
      at += 4 * tile_rows_;
    }
    const uint32_t mask = (1u << high_bits_) - 1;
    for (uint32_t i = 0; i < unit_channels_; i += 8, at += 4 * tile_rows_) {
      const uint32_t word = LoadU32(at);
      for (uint32_t j = i; j < i + 8; ++j) {
        const uint32_t low = word >> (8 * (j % 4) + (j % 8 < 4 ? 0 : 4)) & 15;
        const uint32_t high = plane >> (high_bits_ * (j / 4) + 8 * (j % 4)) & mask;
        q[j] = low | high << 4;
      }
    }
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

  // This row's part of the unit that begins with channel k.
  uint64_t Unit(uint64_t k) const {
    const uint64_t block = k / BlockChannels();
    const uint32_t groups = layout_.type.has_super_blocks() ? 0 : layout_.block_groups(block);
    return layout_.tile_header_bytes + block * layout_.block_bytes +
           layout_.block_header_bytes(groups) + layout_.integer_bytes(k % BlockChannels()) +
           4 * row_;
  }

  const TileLayout& layout_;
  const uint64_t tile_rows_;
  const uint64_t row_;
  const uint32_t bits_;
  uint32_t high_bits_;
  uint64_t unit_channels_;
};

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
  for (uint64_t k = 0; k < layout.cols; k += address.unit_channels()) {
    uint32_t q[kMaxUnit] = {};
    std::copy_n(row.values + k, std::min(address.unit_channels(), layout.cols - k), q);
    address.StoreUnit(q, k, tile);
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
  for (uint64_t k = 0; k < layout.cols; k += address.unit_channels()) {
    uint32_t q[kMaxUnit];
    address.LoadUnit(tile, k, q);
    std::copy_n(q, std::min(address.unit_channels(), layout.cols - k), row.values + k);
  }
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
  const bool minimum = type.offset == WeightOffset::kMinimum;
  const uint64_t group_size = type.group_size == 0 ? layout.padded_cols : type.group_size;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const GroupParameters p = ParametersOf(layout, address, tile, group);
    const uint64_t end = std::min(layout.cols, (group + 1) * group_size);
    for (uint64_t k = group * group_size; k < end; k += address.unit_channels()) {
      uint32_t q[kMaxUnit];
      address.LoadUnit(tile, k, q);
      const uint64_t count = std::min(address.unit_channels(), end - k);
      for (uint64_t i = 0; i < count; ++i) {
        const auto integer = static_cast<int32_t>(q[i]);
        out[k + i] = minimum ? p.scale * static_cast<float>(integer) + p.minimum
                             : p.scale * static_cast<float>(integer - p.zero);
      }
    }
  }
}

}  // namespace sluice
