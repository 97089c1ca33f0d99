#include "kernels/ref/dequantize.h"

#include <algorithm>
#include <cstring>

#include "formats/half.h"

namespace sluice {
namespace {

template <typename T>
T Load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void DequantizeFloats(WeightKind kind, const std::byte* tile, int64_t first, int64_t count,
                      float (*out)[kTileRows]) {
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = first + i;
    for (int64_t row = 0; row < kTileRows; ++row) {
      if (kind == WeightKind::kF32) {
        out[i][row] = Load<float>(tile + (k * kTileRows + row) * 4);
        continue;
      }
      const auto bits = Load<uint16_t>(tile + (k / 2 * kTileRows + row) * 4 + k % 2 * 2);
      out[i][row] = kind == WeightKind::kF16 ? F16ToFloat(bits) : Bf16ToFloat(bits);
    }
  }
}

// What turns the integers of one group into values, for each row: scale * (q - zero) + minimum.
struct GroupParameters {
  float scale[kTileRows];
  int32_t zero[kTileRows];
  float minimum[kTileRows];
};

// Group `group` of a block, as its header gives it.
GroupParameters LoadParameters(const WeightType& type, const std::byte* header, int64_t groups,
                               int64_t group) {
  const std::byte* scales = header + group * kTileRows * 2;
  const std::byte* offsets = header + groups * kTileRows * 2;
  GroupParameters result;
  for (int64_t row = 0; row < kTileRows; ++row) {
    const int64_t index = group * kTileRows + row;
    result.scale[row] = F16ToFloat(Load<uint16_t>(scales + 2 * row));
    result.zero[row] = MiddleOf(type.kind);
    result.minimum[row] = 0;
    if (type.offset == WeightOffset::kZeroPoint) {
      result.zero[row] = static_cast<int32_t>(offsets[index]);
    } else if (type.offset == WeightOffset::kMinimum) {
      result.zero[row] = 0;
      result.minimum[row] = F16ToFloat(Load<uint16_t>(offsets + 2 * index));
    }
  }
  return result;
}

// The same of a super-block: integers times its f16, products that are exact.
GroupParameters LoadSuperParameters(const WeightType& type, const std::byte* header,
                                    int64_t group) {
  GroupParameters result;
  for (int64_t row = 0; row < kTileRows; ++row) {
    const float d = F16ToFloat(Load<uint16_t>(header + 2 * row));
    if (type.kind == WeightKind::kQ6K) {
      const auto scale = std::to_integer<int8_t>(header[(2 + group) * kTileRows + row]);
      result.scale[row] = d * static_cast<float>(scale);
      result.zero[row] = MiddleOf(type.kind);
      result.minimum[row] = 0;
      continue;
    }
    const float dmin = F16ToFloat(Load<uint16_t>(header + 2 * (kTileRows + row)));
    const auto low = static_cast<uint32_t>(header[(4 + group) * kTileRows + row]);
    const uint32_t high =
        static_cast<uint32_t>(header[(12 + group / 2) * kTileRows + row]) >> (group % 2 * 4);
    result.scale[row] = d * static_cast<float>((low & 15) | (high & 3) << 4);
    result.zero[row] = 0;
    result.minimum[row] = -(dmin * static_cast<float>(low >> 4 | (high & 12) << 2));
  }
  return result;
}

// The integer of channel k of a block. Above four bits, each unit of 32 (5 bits) or 16 channels
// (6 bits) begins with a plane of 64 bytes of upper bits.
int32_t IntegerAt(WeightKind kind, const std::byte* values, int64_t k, int64_t row) {
  const uint32_t bits = IntegerBits(kind);
  const int64_t slot = 4 * row + k % 4;
  if (bits == 8) return static_cast<int32_t>(values[k / 4 * 64 + slot]);
  if (bits == 4) return (static_cast<int32_t>(values[k / 8 * 64 + slot]) >> (k % 8 / 4 * 4)) & 15;
  const int64_t high_bits = bits - 4;
  const int64_t unit = 32 / high_bits;
  const std::byte* plane = values + k / unit * (64 + 8 * unit);
  const std::byte* nibbles = plane + 64;
  const int32_t low = static_cast<int32_t>(nibbles[k % unit / 8 * 64 + slot]) >> (k % 8 / 4 * 4);
  const int32_t high = static_cast<int32_t>(plane[slot]) >> (k % unit / 4 * high_bits);
  return (low & 15) | (high & ((1 << high_bits) - 1)) << 4;
}

// Where block `block` of 128 channels lies: its header, its integers, and the first of its groups
// in that header.
struct BlockPlace {
  const std::byte* header;
  const std::byte* values;
  int64_t first_group;
};

BlockPlace PlaceOf(const TileLayout& layout, const std::byte* tile, uint64_t block) {
  if (layout.type.has_super_blocks()) {
    const std::byte* start = tile + block / 2 * layout.block_bytes;
    const uint64_t skipped = block % 2 * layout.integer_bytes(kBlockChannels);
    return {start, start + layout.block_header_bytes(0) + skipped,
            static_cast<int64_t>(block % 2) * (kBlockChannels / layout.type.group_size)};
  }
  const std::byte* start = tile + layout.tile_header_bytes + block * layout.block_bytes;
  return {layout.type.group_size == 0 ? tile : start,
          start + layout.block_header_bytes(layout.block_groups(block)), 0};
}

}  // namespace

int64_t DequantizeBlock(const TileLayout& layout, const std::byte* tile, uint64_t block,
                        float (*out)[kTileRows]) {
  const WeightType& type = layout.type;
  const uint64_t first = block * kBlockChannels;
  const auto count = static_cast<int64_t>(std::min<uint64_t>(kBlockChannels, layout.cols - first));
  if (!type.quantized()) {
    DequantizeFloats(type.kind, tile, static_cast<int64_t>(first), count, out);
    return count;
  }
  const BlockPlace place = PlaceOf(layout, tile, block);
  const bool whole_rows = type.group_size == 0;
  const int64_t groups = whole_rows ? 1 : layout.block_groups(block);
  const int64_t group_size = whole_rows ? kBlockChannels : type.group_size;
  for (int64_t group = 0; group * group_size < count; ++group) {
    const GroupParameters p =
        type.has_super_blocks() ? LoadSuperParameters(type, place.header, place.first_group + group)
                                : LoadParameters(type, place.header, groups, group);
    const int64_t end = std::min(count, (group + 1) * group_size);
    for (int64_t k = group * group_size; k < end; ++k) {
      for (int64_t row = 0; row < kTileRows; ++row) {
        const int32_t q = IntegerAt(type.kind, place.values, k, row);
        const float product = p.scale[row] * static_cast<float>(q - p.zero[row]);
        out[k][row] = type.offset == WeightOffset::kMinimum ? product + p.minimum[row] : product;
      }
    }
  }
  return count;
}

}  // namespace sluice
