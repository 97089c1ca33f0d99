#include "loaders/quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "formats/half.h"
#include "loaders/source_blocks.h"

namespace sluice {
namespace {

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

// One group on a grid: value = scale * q + shift for q in [0, levels].
struct Grid {
  float scale = 0;
  float shift = 0;
};

// The squared error of rounding `values` to the grid; the integers go to `codes`.
float Round(const float* values, int64_t count, const Grid& grid, int32_t levels, uint32_t* codes) {
  const float inverse = grid.scale != 0 ? 1.0f / grid.scale : 0.0f;
  const auto top = static_cast<float>(levels);
  float error = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float position = (values[i] - grid.shift) * inverse;
    const float q = std::nearbyint(std::clamp(position, 0.0f, top));
    const float difference = values[i] - (grid.scale * q + grid.shift);
    error += difference * difference;
    codes[i] = static_cast<uint32_t>(q);
  }
  return error;
}

// How much of the group's range the candidates span. Cutting the tails costs little error there and
// makes the steps finer everywhere else.
constexpr float kInt4Spans[] = {1.0f, 0.96f, 0.92f, 0.88f, 0.84f, 0.8f};
constexpr float kInt8Spans[] = {1.0f};

// Candidates for one group, by the kind of offset; each is what the stored f16 and integers mean.
class GroupQuantizer {
 public:
  GroupQuantizer(const WeightType& type, const float* values, int64_t count)
      : type_(type), values_(values), count_(count) {
    const auto [low, high] = std::minmax_element(values, values + count);
    low_ = *low;
    high_ = *high;
    levels_ = type.kind == WeightKind::kInt4 ? 15 : 255;
  }

  Status Run(uint32_t* codes, uint16_t* scale, uint16_t* offset) {
    float best = std::numeric_limits<float>::infinity();
    uint32_t trial[kMaxGroup];
    const bool row_group = count_ > kMaxGroup;  // whole rows: one candidate, in place
    uint32_t* target = row_group ? codes : trial;
    const std::span<const float> spans = type_.kind == WeightKind::kInt4
                                             ? std::span<const float>(kInt4Spans)
                                             : std::span<const float>(kInt8Spans);
    for (float span : spans) {
      uint16_t scale_bits = 0;
      uint16_t offset_bits = 0;
      const Grid grid = MakeGrid(span, &scale_bits, &offset_bits);
      if (!std::isfinite(grid.scale) || !std::isfinite(grid.shift)) {
        return Status(ErrorCode::kUnsupported,
                      fmt::format("values up to {} need a scale that f16 cannot hold",
                                  std::max(std::fabs(low_), std::fabs(high_))));
      }
      const float error = Round(values_, count_, grid, levels_, target);
      if (error < best) {
        best = error;
        *scale = scale_bits;
        *offset = offset_bits;
        if (!row_group) std::copy(trial, trial + count_, codes);
      }
    }
    return Status();
  }

 private:
  static constexpr int64_t kMaxGroup = 128;

  Grid MakeGrid(float span, uint16_t* scale_bits, uint16_t* offset_bits) const {
    const auto levels = static_cast<float>(levels_);
    switch (type_.offset) {
      case WeightOffset::kNone: {
        // One more level below zero than above: the extreme goes to the side that has it. A
        // negative scale turns the sides round.
        const float extreme = std::fabs(low_) >= std::fabs(high_) ? low_ : high_;
        const float middle = (levels + 1) / 2;
        float scale = type_.kind == WeightKind::kInt4 ? -extreme * span / middle
                                                      : std::fabs(extreme) * span / (middle - 1);
        *scale_bits = FloatToF16(scale);
        scale = F16ToFloat(*scale_bits);
        return {scale, -middle * scale};
      }
      case WeightOffset::kZeroPoint: {
        // Zero is always on the grid.
        const float low = std::min(low_, 0.0f) * span;
        const float high = std::max(high_, 0.0f) * span;
        *scale_bits = FloatToF16((high - low) / levels);
        const float scale = F16ToFloat(*scale_bits);
        const float zero =
            scale > 0 ? std::nearbyint(std::clamp(-low / scale, 0.0f, levels)) : 0.0f;
        *offset_bits = static_cast<uint16_t>(zero);
        return {scale, -zero * scale};
      }
      case WeightOffset::kMinimum: {
        const float cut = (high_ - low_) * (1 - span) / 2;
        *scale_bits = FloatToF16((high_ - low_ - 2 * cut) / levels);
        *offset_bits = FloatToF16(low_ + cut);
        return {F16ToFloat(*scale_bits), F16ToFloat(*offset_bits)};
      }
    }
    return {};
  }

  WeightType type_;
  const float* values_;
  int64_t count_;
  float low_, high_;
  int32_t levels_;
};

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
  for (uint64_t group = 0; group < layout.groups_per_row(); ++group) {
    const uint64_t begin = group * group_size;
    if (begin >= layout.cols) {  // padding only
      out.scales[group] = 0;
      if (out.offsets != nullptr) out.offsets[group] = 0;
      continue;
    }
    const uint64_t count = std::min(group_size, layout.cols - begin);
    GroupQuantizer quantizer(layout.type, row + begin, static_cast<int64_t>(count));
    uint16_t unused_offset = 0;
    Status status = quantizer.Run(out.values + begin, &out.scales[group],
                                  out.offsets != nullptr ? &out.offsets[group] : &unused_offset);
    if (!status.ok()) return status;
  }
  return Status();
}

}  // namespace sluice
