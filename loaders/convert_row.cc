#include "loaders/convert_row.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "loaders/group_quantizer.h"
#include "loaders/quantizer.h"

namespace sluice {
namespace {

constexpr uint32_t kInfinity = 0x7f800000u;  // of a float: its exponent bits

// Each decodes `count` values, and returns whether all are finite. Without branches, so that the
// compiler makes vectors of them.
bool DecodeF32(const std::byte* row, uint64_t count, float* out) {
  std::memcpy(out, row, count * sizeof(float));
  uint32_t infinite = 0;
  for (uint64_t i = 0; i < count; ++i) {
    infinite |= static_cast<uint32_t>((std::bit_cast<uint32_t>(out[i]) & kInfinity) == kInfinity);
  }
  return infinite == 0;
}

bool DecodeBf16(const std::byte* row, uint64_t count, float* out) {
  uint32_t infinite = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, row + 2 * i, sizeof half);
    const uint32_t bits = uint32_t{half} << 16;
    infinite |= static_cast<uint32_t>((bits & kInfinity) == kInfinity);
    out[i] = std::bit_cast<float>(bits);
  }
  return infinite == 0;
}

bool DecodeF16(const std::byte* row, uint64_t count, float* out) {
  uint32_t infinite = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, row + 2 * i, sizeof half);
    const uint32_t magnitude = half & 0x7fffu;
    infinite |= static_cast<uint32_t>(magnitude >= 0x7c00u);
    const uint32_t normal = (magnitude << 13) + (112u << 23);
    const uint32_t subnormal =
        std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
    const uint32_t sign = (half & 0x8000u) << 16;
    out[i] = std::bit_cast<float>(sign | (magnitude < 0x0400u ? subnormal : normal));
  }
  return infinite == 0;
}

bool HasFastWay(SourceType source, const TileLayout& layout) {
  const WeightType& type = layout.type;
  return (source == SourceType::kF32 || source == SourceType::kF16 ||
          source == SourceType::kBF16) &&
         (type.kind == WeightKind::kInt4 || type.kind == WeightKind::kInt8) &&
         type.offset != WeightOffset::kMinimum && type.group_size != 0;
}

// Integers of a block, one byte each, into every `stride`-th group of four bytes (FORMAT.md).
void PackInt4(const uint8_t* codes, uint32_t channels, uint64_t stride, std::byte* out) {
  for (uint32_t k = 0; k < channels; k += 8, out += stride) {
    uint32_t low, high;
    std::memcpy(&low, codes + k, 4);
    std::memcpy(&high, codes + k + 4, 4);
    low |= high << 4;
    std::memcpy(out, &low, 4);
  }
}

void PackInt8(const uint8_t* codes, uint32_t channels, uint64_t stride, std::byte* out) {
  for (uint32_t k = 0; k < channels; k += 4, out += stride) std::memcpy(out, codes + k, 4);
}

}  // namespace

RowConverter::RowConverter(SourceType source, const TileLayout& layout, float added)
    : source_(source),
      added_(added),
      layout_(layout),
      keep_(added == 0 && layout.type == TypeThatKeeps(source)),
      fast_(!keep_ && added == 0 && HasFastWay(source, layout)),
      kernels_(AvailableGroupKernels().back()) {
  if (!fast_) MakeScratch();
}

void RowConverter::MakeScratch() {
  row_.resize(layout_.cols);
  values_.resize(layout_.cols);
  scales_.resize(layout_.groups_per_row());
  offsets_.resize(layout_.groups_per_row());
  super_scales_.resize(layout_.num_super_blocks());
  super_offsets_.resize(layout_.num_super_blocks());
}

Status RowConverter::Convert(const std::byte* row, uint32_t row_in_tile, std::byte* tile) {
  if (fast_) {
    if (QuantizeFloats(row, row_in_tile, tile)) return Status();
    fast_ = false;  // the plain way finds out what is wrong
    MakeScratch();
  }
  const RowCodes codes = {values_.data(), scales_.data(), offsets_.data(), super_scales_.data(),
                          super_offsets_.data()};
  if (keep_) {
    KeepRow(source_, row, layout_, codes);
    if (!IsFinite(layout_, codes)) {
      DecodeSourceRow(source_, row, layout_.cols, row_.data());
      if (Status s = RefuseInfinite(row_.data(), layout_.cols); !s.ok()) return s;
    }
  } else {
    DecodeSourceRow(source_, row, layout_.cols, row_.data());
    if (added_ != 0) {
      for (float& value : row_) value += added_;
    }
    if (Status s = QuantizeRow(row_.data(), layout_, codes); !s.ok()) return s;
  }
  PackRow(layout_, row_in_tile, codes, tile);
  return Status();
}

// A group: codes up to the block's padding are zero where the row has no values.
bool RowConverter::QuantizeInto(const std::byte* row, uint64_t begin, uint64_t count,
                                uint16_t* scale, uint16_t* offset, uint8_t* codes) const {
  alignas(64) float values[kBlockChannels];
  const uint64_t bytes = source_ == SourceType::kF32 ? 4 : 2;
  const std::byte* at = row + begin * bytes;
  const bool finite = source_ == SourceType::kF32    ? DecodeF32(at, count, values)
                      : source_ == SourceType::kBF16 ? DecodeBf16(at, count, values)
                                                     : DecodeF16(at, count, values);
  return finite && QuantizeGroup(kernels_, layout_.type, values, static_cast<int64_t>(count), codes,
                                 scale, offset)
                       .ok();
}

// False: a value that cannot be converted; the row is not whole then.
bool RowConverter::QuantizeFloats(const std::byte* row, uint32_t row_in_tile,
                                  std::byte* tile) const {
  const uint64_t tile_rows = layout_.tile_rows;
  const uint64_t group_size = layout_.type.group_size;
  alignas(64) uint8_t codes[kBlockChannels];
  for (uint64_t block = 0; block < layout_.num_blocks(); ++block) {
    std::byte* base = tile + block * layout_.block_bytes;
    const uint32_t groups = layout_.block_groups(block);
    std::memset(codes, 0, sizeof codes);
    for (uint64_t group = 0; group < groups; ++group) {
      const uint64_t inner = group * group_size;
      const uint64_t begin = block * kBlockChannels + inner;
      if (begin >= layout_.cols) break;  // padding only
      const uint64_t count = std::min(group_size, layout_.cols - begin);
      uint16_t scale = 0, offset = 0;
      if (!QuantizeInto(row, begin, count, &scale, &offset, codes + inner)) return false;
      std::memcpy(base + (group * tile_rows + row_in_tile) * 2, &scale, 2);
      if (layout_.type.offset == WeightOffset::kZeroPoint) {
        base[(2 * groups + group) * tile_rows + row_in_tile] = static_cast<std::byte>(offset);
      }
    }
    std::byte* integers = base + layout_.block_header_bytes(groups) + 4 * row_in_tile;
    const auto pack = layout_.type.kind == WeightKind::kInt4 ? PackInt4 : PackInt8;
    pack(codes, layout_.block_channels(block), 4 * tile_rows, integers);
  }
  return true;
}

}  // namespace sluice
