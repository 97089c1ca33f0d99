#include "loaders/quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "formats/half.h"
#include "loaders/group_quantizer.h"

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

WeightType TypeThatKeeps(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {WeightKind::kF32, WeightOffset::kNone, 0};
    case SourceType::kF16:
      return {WeightKind::kF16, WeightOffset::kNone, 0};
    case SourceType::kBF16:
      return {WeightKind::kBF16, WeightOffset::kNone, 0};
    case SourceType::kQ8_0:
      return {WeightKind::kInt8, WeightOffset::kNone, 32};
    case SourceType::kQ4_0:
      return {WeightKind::kInt4, WeightOffset::kNone, 32};
    case SourceType::kQ4_1:
      return {WeightKind::kInt4, WeightOffset::kMinimum, 32};
  }
  return {};
}

WeightType TypeThatKeeps(const SourceTensor& tensor) {
  return tensor.added == 0 ? TypeThatKeeps(tensor.type)
                           : WeightType{WeightKind::kF32, WeightOffset::kNone, 0};
}

void KeepRow(SourceType type, const std::byte* row, const TileLayout& layout, const RowCodes& out) {
  if (type == SourceType::kF32) {
    std::memcpy(out.values, row, layout.cols * 4);
    return;
  }
  if (type == SourceType::kF16 || type == SourceType::kBF16) {
    for (uint64_t k = 0; k < layout.cols; ++k) out.values[k] = LoadU16(row + 2 * k);
    return;
  }
  // Blocks of 32: f16 d, for Q4_1 f16 m, then the integers.
  const uint64_t block_bytes = SourceRowBytes(type, 32);
  for (uint64_t block = 0; block < layout.cols / 32; ++block) {
    const std::byte* p = row + block * block_bytes;
    uint32_t* values = out.values + block * 32;
    out.scales[block] = LoadU16(p);
    p += 2;
    if (type == SourceType::kQ4_1) {
      out.offsets[block] = LoadU16(p);
      p += 2;
    }
    for (uint32_t i = 0; i < 32; ++i) {
      if (type == SourceType::kQ8_0) {
        values[i] = static_cast<uint32_t>(p[i]) ^ 0x80u;  // q + 128
      } else {
        const auto byte = static_cast<uint32_t>(p[i % 16]);
        values[i] = i < 16 ? byte & 15 : byte >> 4;
      }
    }
  }
}

Status QuantizeRow(const float* row, const TileLayout& layout, const RowCodes& out) {
  for (uint64_t k = 0; k < layout.cols; ++k) {
    if (!std::isfinite(row[k])) {
      return Status(ErrorCode::kCorrupt, fmt::format("the value at column {} is {}", k, row[k]));
    }
  }
  if (!layout.type.quantized()) return RoundFloats(row, layout, out);
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
