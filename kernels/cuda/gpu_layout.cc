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
  if (gpu.super_scales) {
    const int64_t kinds = gpu.offset == WeightOffset::kMinimum ? 2 : 1;
    return kinds * kTileRows * (2 + groups);
  }
  return groups * kTileRows * (2 + OffsetBytes(gpu.offset));
}

int64_t UnitChannels(WeightKind kind) {
  switch (kind) {
    case WeightKind::kInt8:
      return 32;
    case WeightKind::kF16:
    case WeightKind::kBF16:
      return 16;
    case WeightKind::kF32:
      return 8;
    default:
      return 64;
  }
}

// Puts one row's codes into a tile.
class RowWriter {
 public:
  RowWriter(const GpuLayout& gpu, int64_t row, std::byte* tile)
      : gpu_(gpu), row_(row), tile_(tile) {}

  void Values(const uint32_t* values) const {
    for (int64_t k = 0; k < gpu_.cols; ++k) {
      std::byte* unit = Chunk(k) + k % kGpuChunkChannels / gpu_.unit_channels * gpu_.unit_bytes;
      Value(unit, k % gpu_.unit_channels, values[k]);
    }
  }

  void Parameters(const RowCodes& codes) const {
    const uint16_t* scales = codes.scales;
    const uint16_t* offsets = codes.offsets;
    if (gpu_.whole_rows) return Group(tile_, 1, 0, scales[0], offsets[0]);
    if (gpu_.super_scales) return SuperScales(codes);
    const int64_t groups = (gpu_.padded_cols + gpu_.group_size - 1) / gpu_.group_size;
    const int64_t per_chunk = kGpuChunkChannels / gpu_.group_size;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t first = group / per_chunk * kGpuChunkChannels;  // channel of the chunk
      const int64_t channels = std::min(kGpuChunkChannels, gpu_.padded_cols - first);
      const int64_t in_chunk = (channels + gpu_.group_size - 1) / gpu_.group_size;
      Group(Chunk(first) + channels / gpu_.unit_channels * gpu_.unit_bytes, in_chunk,
            group % per_chunk, scales[group], offsets[group]);
    }
  }

 private:
  std::byte* Chunk(int64_t k) const {
    return tile_ + gpu_.header_bytes + k / kGpuChunkChannels * gpu_.chunk_bytes;
  }

  // The lane, and its word, that hold `channel` of a unit, where a word has `per_word` channels.
  int64_t LaneOf(int64_t channel, int64_t per_word) const {
    return row_ % 8 * 4 + channel / (2 * per_word);
  }
  int64_t WordOf(int64_t channel, int64_t per_word) const {
    return channel / per_word % 2 * 2 + row_ / 8;
  }
  std::byte* Word(std::byte* unit, int64_t channel, int64_t per_word) const {
    return unit + LaneOf(channel, per_word) * 16 + WordOf(channel, per_word) * 4;
  }

  // 4 bits, and where there are more, the others behind them.
  void Integer(std::byte* unit, int64_t channel, uint32_t value) const {
    const int64_t half = channel / 32;
    channel %= 32;
    Word(unit, channel, 4)[channel % 4] |= static_cast<std::byte>((value & 15) << (4 * half));
    const int64_t lane = LaneOf(channel, 4);
    const int64_t word = WordOf(channel, 4);
    std::byte* high = unit + kGpuUnitBytes + channel % 4;
    if (gpu_.bits == 5) high[lane * 4] |= static_cast<std::byte>(value >> 4 << (4 * half + word));
    if (gpu_.bits == 6) high[lane * 8 + half * 4] |= static_cast<std::byte>(value >> 4 << 2 * word);
  }

  void Value(std::byte* unit, int64_t channel, uint32_t value) const {
    switch (gpu_.kind) {
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
        Integer(unit, channel, value);
        return;
    }
  }

  // Of each chunk the super-block's two numbers, and its groups' bytes.
  void SuperScales(const RowCodes& codes) const {
    const int64_t per_chunk = kGpuChunkChannels / gpu_.group_size;
    for (int64_t chunk = 0; chunk < gpu_.num_chunks; ++chunk) {
      const int64_t super_block = chunk * kGpuChunkChannels / kSuperBlockChannels;
      const bool has_minimum = gpu_.offset == WeightOffset::kMinimum;
      std::byte* at = Chunk(chunk * kGpuChunkChannels) +
                      kGpuChunkChannels / gpu_.unit_channels * gpu_.unit_bytes;
      std::memcpy(at + row_ * 2, &codes.super_scales[super_block], 2);
      at += kTileRows * 2;
      if (has_minimum) {
        std::memcpy(at + row_ * 2, &codes.super_offsets[super_block], 2);
        at += kTileRows * 2;
      }
      for (int64_t group = 0; group < per_chunk; ++group) {
        const int64_t of_row = chunk * per_chunk + group;
        at[group * kTileRows + row_] = static_cast<std::byte>(codes.scales[of_row]);
        if (!has_minimum) continue;
        at[(per_chunk + group) * kTileRows + row_] = static_cast<std::byte>(codes.offsets[of_row]);
      }
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
  if (layout.tile_rows != kTileRows) {
    return Status(ErrorCode::kUnsupported, "the CUDA operations do not know " +
                                               WeightTypeName(type) + " in tiles of " +
                                               std::to_string(layout.tile_rows) + " rows");
  }
  GpuLayout gpu = {};
  gpu.kind = type.kind;
  gpu.offset = type.offset;
  gpu.whole_rows = type.quantized() && type.group_size == 0;
  gpu.group_size = type.group_size == 0 ? kGpuChunkChannels : type.group_size;
  gpu.super_scales = type.has_super_blocks();
  gpu.bits = static_cast<int>(IntegerBits(type.kind));
  gpu.unit_channels = UnitChannels(type.kind);
  // Behind the low four bits of 16 rows the others.
  gpu.unit_bytes = kGpuUnitBytes;
  if (gpu.bits == 5 || gpu.bits == 6) {
    gpu.unit_bytes += (gpu.bits - 4) * gpu.unit_channels * int64_t{kTileRows} / 8;
  }
  gpu.cols = static_cast<int64_t>(layout.cols);
  // A TileLayout's row is at most 16 MiB, so nothing below can overflow.
  gpu.padded_cols = static_cast<int64_t>(
      RoundUp(layout.cols, static_cast<uint64_t>(type.quantized() ? gpu.unit_channels : 16)));
  gpu.num_chunks = (gpu.padded_cols + kGpuChunkChannels - 1) / kGpuChunkChannels;
  const bool grouped = type.quantized() && !gpu.whole_rows;
  const auto bytes = [&](int64_t channels) {
    const int64_t groups = grouped ? (channels + gpu.group_size - 1) / gpu.group_size : 0;
    return channels / gpu.unit_channels * gpu.unit_bytes + ParameterBytes(gpu, groups);
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
  std::vector<uint16_t> super_scales(layout.num_super_blocks());
  std::vector<uint16_t> super_offsets(layout.num_super_blocks());
  std::fill_n(out, num_tiles * gpu.tile_bytes, std::byte{0});
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const std::byte* from = tiles + static_cast<uint64_t>(tile) * layout.tile_bytes;
    for (uint32_t row = 0; row < kTileRows; ++row) {
      RowCodes codes;
      codes.values = values.data();
      codes.scales = scales.data();
      codes.offsets = offsets.data();
      codes.super_scales = super_scales.data();
      codes.super_offsets = super_offsets.data();
      UnpackRow(layout, from, row, codes);
      const RowWriter writer(gpu, row, out + tile * gpu.tile_bytes);
      writer.Values(values.data());
      if (layout.type.quantized()) writer.Parameters(codes);
    }
  }
}

}  // namespace sluice
