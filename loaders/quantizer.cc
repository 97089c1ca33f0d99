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

Status QuantizeRow(const float* row, const TileLayout& layout, const RowCodes& out) {
  for (uint64_t k = 0; k < layout.cols; ++k) {
    if (!std::isfinite(row[k])) {
      return Status(ErrorCode::kCorrupt, fmt::format("the value at column {} is {}", k, row[k]));
    }
  }
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
