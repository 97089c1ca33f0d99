#include "loaders/group_quantizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "formats/half.h"

namespace sluice {
namespace {

// How much of the group's range the candidates span. Cutting the tails costs little error there and
// makes the steps finer everywhere else.
constexpr float kInt4Spans[] = {1.0f, 0.96f, 0.92f, 0.88f, 0.84f, 0.8f};
constexpr float kInt8Spans[] = {1.0f};

// A grid as it is stored: scale and offset are rounded.
struct StoredGrid {
  QuantizationGrid grid;
  uint16_t scale_bits = 0;
  uint16_t offset_bits = 0;
};

StoredGrid MakeGrid(const WeightType& type, float low, float high, float span) {
  StoredGrid stored;
  stored.grid.levels = type.kind == WeightKind::kInt4 ? 15 : 255;
  const auto levels = static_cast<float>(stored.grid.levels);
  const auto store_scale = [&stored](float scale) {
    stored.scale_bits = FloatToF16(scale);
    return stored.grid.scale = F16ToFloat(stored.scale_bits);
  };
  switch (type.offset) {
    case WeightOffset::kNone: {
      // One more level below zero than above: the extreme goes to the side that has it. A negative
      // scale turns the sides round.
      const float extreme = std::fabs(low) >= std::fabs(high) ? low : high;
      const float middle = (levels + 1) / 2;
      const float scale =
          store_scale(type.kind == WeightKind::kInt4 ? -extreme * span / middle
                                                     : std::fabs(extreme) * span / (middle - 1));
      stored.grid.shift = -middle * scale;
      break;
    }
    case WeightOffset::kZeroPoint: {
      // Zero is always on the grid.
      const float bottom = std::min(low, 0.0f) * span;
      const float top = std::max(high, 0.0f) * span;
      const float scale = store_scale((top - bottom) / levels);
      const float zero =
          scale > 0 ? std::nearbyint(std::clamp(-bottom / scale, 0.0f, levels)) : 0.0f;
      stored.offset_bits = static_cast<uint16_t>(zero);
      stored.grid.shift = -zero * scale;
      break;
    }
    case WeightOffset::kMinimum: {
      const float cut = (high - low) * (1 - span) / 2;
      store_scale((high - low - 2 * cut) / levels);
      stored.offset_bits = FloatToF16(low + cut);
      stored.grid.shift = F16ToFloat(stored.offset_bits);
      break;
    }
  }
  return stored;
}

}  // namespace

Status QuantizeGroup(const GroupKernels& kernels, const WeightType& type, const float* values,
                     int64_t count, uint8_t* codes, uint16_t* scale, uint16_t* offset) {
  float low = 0, high = 0;
  kernels.range(values, count, &low, &high);
  const std::span<const float> spans = type.kind == WeightKind::kInt4
                                           ? std::span<const float>(kInt4Spans)
                                           : std::span<const float>(kInt8Spans);
  StoredGrid best;
  float least = std::numeric_limits<float>::infinity();
  for (const float span : spans) {
    const StoredGrid stored = MakeGrid(type, low, high, span);
    if (!std::isfinite(stored.grid.scale) || !std::isfinite(stored.grid.shift)) {
      return Status(ErrorCode::kUnsupported,
                    fmt::format("values up to {} need a scale that f16 cannot hold",
                                std::max(std::fabs(low), std::fabs(high))));
    }
    const float error = spans.size() == 1 ? 0 : kernels.error(values, count, stored.grid);
    if (error < least) {
      least = error;
      best = stored;
    }
  }
  kernels.round(values, count, best.grid, codes);
  *scale = best.scale_bits;
  if (type.offset != WeightOffset::kNone) *offset = best.offset_bits;
  return Status();
}

}  // namespace sluice
