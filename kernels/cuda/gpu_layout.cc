#include "kernels/cuda/gpu_layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "formats/checked.h"

namespace sluice {
namespace {

int64_t OffsetBytes(WeightOffset offset) {
  return offset == WeightOffset::kNone ? 0 : offset == WeightOffset::kZeroPoint ? 1 : 2;
}

// Scales and offsets of `groups` groups.
int64_t ParameterBytes(const GpuLayout& gpu, int64_t groups) {
  return groups * kTileRows * (2 + OffsetBytes(gpu.offset));
}

// 0 for kinds that the CUDA operations do not know.
int64_t UnitChannels(WeightKind kind) {
  switch (kind) {
    case WeightKind::kInt4:
      return 64;
    case WeightKind::kInt8:
      return 32;
    case WeightKind::kF16:
    case WeightKind::kBF16:
      return 16;
    case WeightKind::kF32:
      return 8;
    default:
      return 0;
  }
}

// Puts one row's codes into a tile.
class RowWriter {
 public:
  RowWriter(const GpuLayout& gpu, int64_t row, std::byte* tile)
      : gpu_(gpu), row_(row), tile_(tile) {}

  void Values(const uint32_t* values) const {
    for (int64_t k = 0; k < gpu_.cols; ++k) {
      std::byte* unit = Chunk(k) + k % kGpuChunkChannels / gpu_.unit_channels * kGpuUnitBytes;
      Value(unit, k % gpu_.unit_channels, values[k]);
    }
  }

  void Parameters(const uint16_t* scales, const uint16_t* offsets) const {
    if (gpu_.whole_rows) return Group(tile_, 1, 0, scales[0], offsets[0]);
    const int64_t groups = (gpu_.padded_cols + gpu_.group_size - 1) / gpu_.group_size;
    const int64_t per_chunk = kGpuChunkChannels / gpu_.group_size;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group / per_chunk * kGpuChunkChannels;  // channel of the chunk
      const int64_t channels = std::min(kGpuChunkChannels, gpu_.padded_cols - first);
      const int64_t in_chunk = (channels + gpu_.group_size - 1) / gpu_.group_size;
      Group(Chunk(first) + channels / gpu_.unit_channels * kGpuUnitBytes, in_chunk,
            group % per_chunk, scales[group], offsets[group]);
    }
  }

 private:
  std::byte* Chunk(int64_t k) const {
    return tile_ + gpu_.header_bytes + k / kGpuChunkChannels * gpu_.chunk_bytes;
  }

  // The word of a lane that holds `channel` of the unit, where a word has `per_word` channels.
  std::byte* Word(std::byte* unit, int64_t channel, int64_t per_word) const {
    const int64_t lane = row_ % 8 * 4 + channel / (2 * per_word);
    const int64_t word = channel / per_word % 2 * 2 + row_ / 8;
    return unit + lane * 16 + word * 4;
  }

  void Value(std::byte* unit, int64_t channel, uint32_t value) const {
    switch (gpu_.kind) {
      case WeightKind::kInt4: {
        std::byte* byte = Word(unit, channel % 32, 4) + channel % 4;
        *byte |= static_cast<std::byte>(value << (channel < 32 ? 0 : 4));
        return;
      }
      case WeightKind::kInt8:
        Word(unit, channel, 4)[channel % 4] = static_cast<std::byte>(value);
        return;
      case WeightKind::kF16:
      case WeightKind::kBF16: {
        const auto bits = static_cast<uint16_t>(value);
        std::memcpy(Word(unit, channel, 2) + channel % 2 * 2, &bits, 2);
        return;
      }
      case WeightKind::kF32:
        std::memcpy(Word(unit, channel, 1), &value, 4);
        return;
      default:
        return;
    }
  }

  void Group(std::byte* parameters, int64_t groups, int64_t group, uint16_t scale,
             uint16_t offset) const {
    std::memcpy(parameters + (group * kTileRows + row_) * 2, &scale, 2);
    const int64_t size = OffsetBytes(gpu_.offset);
    std::byte* offsets = parameters + groups * kTileRows * 2;
    std::memcpy(offsets + (group * kTileRows + row_) * size, &offset, static_cast<size_t>(size));
  }

  const GpuLayout& gpu_;
  int64_t row_;
  std::byte* tile_;
};

}  // namespace

Result<GpuLayout> MakeGpuLayout(const TileLayout& layout) {
  const WeightType& type = layout.type;
  const bool known_group = type.group_size == 0 || type.group_size >= 32;
  if (layout.tile_rows != kTileRows || !known_group || UnitChannels(type.kind) == 0) {
    return Status(ErrorCode::kUnsupported, "the CUDA operations do not know " +
                                               WeightTypeName(type) + " in tiles of " +
                                               std::to_string(layout.tile_rows) + " rows");
  }
  GpuLayout gpu = {};
  gpu.kind = type.kind;
  gpu.offset = type.offset;
  gpu.whole_rows = type.quantized() && type.group_size == 0;
  gpu.group_size = type.group_size == 0 ? kGpuChunkChannels : type.group_size;
  gpu.unit_channels = UnitChannels(type.kind);
  gpu.cols = static_cast<int64_t>(layout.cols);
  // A TileLayout's row is at most 16 MiB, so nothing below can overflow.
  gpu.padded_cols = static_cast<int64_t>(
      RoundUp(layout.cols, static_cast<uint64_t>(type.quantized() ? gpu.unit_channels : 16)));
  gpu.num_chunks = (gpu.padded_cols + kGpuChunkChannels - 1) / kGpuChunkChannels;
  const bool grouped = type.quantized() && !gpu.whole_rows;
  const auto bytes = [&](int64_t channels) {
    const int64_t groups = grouped ? (channels + gpu.group_size - 1) / gpu.group_size : 0;
    return channels / gpu.unit_channels * kGpuUnitBytes + ParameterBytes(gpu, groups);
  };
  gpu.header_bytes = gpu.whole_rows ? ParameterBytes(gpu, 1) : 0;
  gpu.chunk_bytes = bytes(kGpuChunkChannels);
  const int64_t last = gpu.padded_cols - (gpu.num_chunks - 1) * kGpuChunkChannels;
  gpu.tile_bytes = gpu.header_bytes + (gpu.num_chunks - 1) * gpu.chunk_bytes + bytes(last);
  return gpu;
}

void RepackForGpu(const TileLayout& layout, const std::byte* tiles, int64_t num_tiles,
                  const GpuLayout& gpu, std::byte* out) {
  // int4 is padded further here than in the file: the groups beyond have scales of zero.
  const uint64_t groups = layout.groups_per_row() + 4;
  std::vector<uint32_t> values(layout.cols);
  std::vector<uint16_t> scales(groups);
  std::vector<uint16_t> offsets(groups);
  std::fill_n(out, num_tiles * gpu.tile_bytes, std::byte{0});
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const std::byte* from = tiles + static_cast<uint64_t>(tile) * layout.tile_bytes;
    for (uint32_t row = 0; row < kTileRows; ++row) {
      RowCodes codes;
      codes.values = values.data();
      codes.scales = scales.data();
      codes.offsets = offsets.data();
      UnpackRow(layout, from, row, codes);
      const RowWriter writer(gpu, row, out + tile * gpu.tile_bytes);
      writer.Values(values.data());
      if (layout.type.quantized()) writer.Parameters(scales.data(), offsets.data());
    }
  }
}

}  // namespace sluice
