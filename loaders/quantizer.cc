#include "loaders/quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats/half.h"
#include "loaders/group_quantizer.h"
#include "loaders/source_blocks.h"

namespace sluice {
namespace {

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

Status RoundFloats(const float* row, const TileLayout& layout, const RowCodes& out) {
  for (uint64_t k = 0; k < layout.cols; ++k) {
    if (layout.type.kind == WeightKind::kF32) {
      out.values[k] = std::bit_cast<uint32_t>(row[k]);
    } else if (layout.type.kind == WeightKind::kBF16) {
      out.values[k] = FloatToBf16(row[k]);
    } else {
      out.values[k] = FloatToF16(row[k]);
      if ((out.values[k] & 0x7fffu) == 0x7c00u) {
        return Status(ErrorCode::kUnsupported, fmt::format("f16 cannot hold {}", row[k]));
      }
    }
  }
  return Status();
}

}  // namespace

void KeepRow(SourceType type, const std::byte* row, const TileLayout& layout, const RowCodes& out) {
  if (type == SourceType::kF32) {
    std::memcpy(out.values, row, layout.cols * 4);
    return;
  }
  if (type == SourceType::kF16 || type == SourceType::kBF16) {
    for (uint64_t k = 0; k < layout.cols; ++k) out.values[k] = LoadU16(row + 2 * k);
    return;
  }
  const uint64_t block_values = SourceBlockValues(type);
  const uint64_t block_bytes = SourceRowBytes(type, block_values);
  const uint64_t groups = block_values / layout.type.group_size;
  SourceBlock block = {};
  for (uint64_t b = 0; b < layout.cols / block_values; ++b) {
    UnpackSourceBlock(type, row + b * block_bytes, &block);
    std::copy_n(block.values, block_values, out.values + b * block_values);
    std::copy_n(block.scales, groups, out.scales + b * groups);
    if (layout.type.offset != WeightOffset::kNone) {
      std::copy_n(block.offsets, groups, out.offsets + b * groups);
    }
    if (!layout.type.has_super_blocks()) continue;
    out.super_scales[b] = block.super_scale;
    if (layout.type.offset != WeightOffset::kNone) out.super_offsets[b] = block.super_offset;
  }
}

bool IsFinite(const TileLayout& layout, const RowCodes& kept) {
  constexpr uint32_t kF32Exponent = 0x7f800000u, kBf16Exponent = 0x7f80u, kF16Exponent = 0x7c00u;
  const WeightType& type = layout.type;
  const auto all_finite = [](const auto* bits, uint64_t count, uint32_t exponent) {
    uint32_t infinite = 0;
    for (uint64_t i = 0; i < count; ++i) {
      infinite |= static_cast<uint32_t>((bits[i] & exponent) == exponent);
    }
    return infinite == 0;
  };
  if (!type.quantized()) {
    return all_finite(kept.values, layout.cols,
                      type.kind == WeightKind::kF32    ? kF32Exponent
                      : type.kind == WeightKind::kBF16 ? kBf16Exponent
                                                       : kF16Exponent);
  }
  const bool super = type.has_super_blocks();
  const uint64_t count = super ? layout.num_super_blocks() : layout.cols / type.group_size;
  return all_finite(super ? kept.super_scales : kept.scales, count, kF16Exponent) &&
         (type.offset == WeightOffset::kNone ||
          all_finite(super ? kept.super_offsets : kept.offsets, count, kF16Exponent));
}

Status RefuseInfinite(const float* row, uint64_t cols) {
  for (uint64_t k = 0; k < cols; ++k) {
    if (!std::isfinite(row[k])) {
      return Status(ErrorCode::kCorrupt, fmt::format("the value at column {} is {}", k, row[k]));
    }
  }
  return Status();
}

Status QuantizeRow(const float* row, const TileLayout& layout, const RowCodes& out) {
  if (Status s = RefuseInfinite(row, layout.cols); !s.ok()) return s;
  if (!layout.type.quantized()) return RoundFloats(row, layout, out);
  if (layout.type.kind >= WeightKind::kInt5) {
    return Status(ErrorCode::kUnsupported, fmt::format("rows are kept in {}, not rounded to it",
                                                       WeightTypeName(layout.type)));
  }
  const uint64_t group_size =
      layout.type.group_size == 0 ? layout.padded_cols : layout.type.group_size;
  const GroupKernels& kernels = AvailableGroupKernels().back();
  std::vector<uint8_t> codes;
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const uint64_t begin = group * group_size;
    if (begin >= layout.cols) {  // padding only
      out.scales[group] = 0;
      if (out.offsets != nullptr) out.offsets[group] = 0;
      continue;
    }
    const uint64_t count = std::min(group_size, layout.cols - begin);
    codes.resize(count);
    uint16_t unused_offset = 0;
    Status status = QuantizeGroup(kernels, layout.type, row + begin, static_cast<int64_t>(count),
                                  codes.data(), &out.scales[group],
                                  out.offsets != nullptr ? &out.offsets[group] : &unused_offset);
    if (!status.ok()) return status;
    std::copy(codes.begin(), codes.end(), out.values + begin);
  }
  return Status();
}

}  // namespace sluice
