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

GroupParameters LoadParameters(const WeightType& type, const std::byte* scales,
                               const std::byte* offsets) {
  GroupParameters result;
  for (int64_t row = 0; row < kTileRows; ++row) {
    result.scale[row] = F16ToFloat(Load<uint16_t>(scales + 2 * row));
    result.zero[row] = type.kind == WeightKind::kInt4 ? 8 : 128;
    result.minimum[row] = 0;
    if (type.offset == WeightOffset::kZeroPoint) {
      result.zero[row] = static_cast<int32_t>(offsets[row]);
    } else if (type.offset == WeightOffset::kMinimum) {
      result.zero[row] = 0;
      result.minimum[row] = F16ToFloat(Load<uint16_t>(offsets + 2 * row));
    }
  }
  return result;
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
  const bool whole_rows = type.group_size == 0;
  const uint32_t groups = layout.block_groups(block);
  const std::byte* start = tile + layout.tile_header_bytes + block * layout.block_bytes;
  const std::byte* header = whole_rows ? tile : start;
  const std::byte* values = start + layout.block_header_bytes(groups);
  const std::byte* offsets = header + (whole_rows ? 1 : groups) * kTileRows * 2;
  const int64_t group_size = whole_rows ? kBlockChannels : type.group_size;
  const int64_t offset_bytes = type.offset == WeightOffset::kMinimum ? 2 : 1;
  for (int64_t group = 0; group * group_size < count; ++group) {
    const GroupParameters p = LoadParameters(type, header + group * kTileRows * 2,
                                             offsets + group * kTileRows * offset_bytes);
    const int64_t end = std::min(count, (group + 1) * group_size);
    for (int64_t k = group * group_size; k < end; ++k) {
      for (int64_t row = 0; row < kTileRows; ++row) {
        int32_t q;
        if (type.kind == WeightKind::kInt8) {
          q = static_cast<int32_t>(values[k / 4 * 64 + 4 * row + k % 4]);
        } else {
          q = static_cast<int32_t>(values[k / 8 * 64 + 4 * row + k % 4]) >> (k % 8 < 4 ? 0 : 4);
          q &= 15;
        }
        const float product = p.scale[row] * static_cast<float>(q - p.zero[row]);
        out[k][row] = type.offset == WeightOffset::kMinimum ? product + p.minimum[row] : product;
      }
    }
  }
  return count;
}

}  // namespace sluice
