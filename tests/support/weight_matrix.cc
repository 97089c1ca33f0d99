#include "tests/support/weight_matrix.h"

#include <bit>
#include <cmath>

#include "formats/half.h"

namespace sluice {

void PrintTo(const WeightType& type, std::ostream* out) { *out << WeightTypeName(type); }

}  // namespace sluice

namespace sluice::test {
namespace {

uint32_t RandomValue(WeightKind kind, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const float value = normal(random);
  switch (kind) {
    case WeightKind::kF32:
      return std::bit_cast<uint32_t>(value);
    case WeightKind::kF16:
      return random() % 16 == 0 ? static_cast<uint32_t>(random() % 0x400) : FloatToF16(value);
    case WeightKind::kBF16:
      return FloatToBf16(value);
    default:
      return static_cast<uint32_t>(random() % (1u << IntegerBits(kind)));
  }
}

uint16_t RandomScale(std::mt19937& random) {
  if (random() % 32 == 0) return 0;
  if (random() % 32 == 0) return static_cast<uint16_t>(random() % 0x400);
  std::normal_distribution<float> normal(0, 0.01f);
  return FloatToF16(normal(random));
}

}  // namespace

std::vector<WeightType> AllWeightTypes() {
  std::vector<WeightType> types;
  for (int kind = 0; kind < kWeightKindCount; ++kind) {
    for (int offset = 0; offset < 3; ++offset) {
      for (uint16_t group : {0, 16, 32, 64, 128}) {
        const WeightType type{static_cast<WeightKind>(kind), static_cast<WeightOffset>(offset),
                              group};
        if (IsValid(type)) types.push_back(type);
      }
    }
  }
  return types;
}

WeightMatrix RandomMatrix(const WeightType& type, uint64_t rows, uint64_t cols, uint32_t tile_rows,
                          std::mt19937& random) {
  WeightMatrix matrix;
  matrix.layout = MakeTileLayout(type, rows, cols, tile_rows).value();
  matrix.tiles.resize(matrix.layout.size_bytes);
  for (uint64_t row = 0; row < rows; ++row) {
    WeightRow& codes = matrix.rows.emplace_back();
    for (uint64_t k = 0; k < cols; ++k) codes.values.push_back(RandomValue(type.kind, random));
    for (uint64_t block = 0; block < matrix.layout.num_super_blocks(); ++block) {
      codes.super_scales.push_back(RandomScale(random));
      if (type.offset == WeightOffset::kNone) continue;
      codes.super_offsets.push_back(RandomScale(random));
    }
    for (uint64_t group = 0; type.quantized() && group < matrix.layout.groups_per_row(); ++group) {
      if (type.has_super_blocks()) {
        const uint32_t scales = type.kind == WeightKind::kQ6K ? 256 : 64;
        codes.scales.push_back(static_cast<uint16_t>(random() % scales));
        codes.offsets.push_back(static_cast<uint16_t>(random() % 64));
        continue;
      }
      codes.scales.push_back(RandomScale(random));
      const uint32_t zero_points = type.kind == WeightKind::kInt4 ? 16 : 256;
      codes.offsets.push_back(type.offset == WeightOffset::kMinimum
                                  ? RandomScale(random)
                                  : static_cast<uint16_t>(random() % zero_points));
    }
    PackRow(matrix.layout, static_cast<uint32_t>(row % tile_rows), codes.codes(),
            matrix.tiles.data() + row / tile_rows * matrix.layout.tile_bytes);
  }
  return matrix;
}

int64_t ColsFor(const WeightType& type, int64_t cols) {
  return type.has_super_blocks() ? (cols + 255) / 256 * 256 : cols;
}

GroupScale ScaleOf(const WeightType& type, const WeightRow& codes, size_t group) {
  const uint16_t scale = codes.scales[group];
  const uint16_t offset = type.offset == WeightOffset::kMinimum ? codes.offsets[group] : 0;
  if (!type.has_super_blocks()) return {F16ToFloat(scale), F16ToFloat(offset)};
  const size_t block = group / (256 / type.group_size);
  const float d = F16ToFloat(codes.super_scales[block]);
  if (type.kind == WeightKind::kQ6K)
    return {d * static_cast<float>(scale < 128 ? scale : scale - 256), 0};
  return {d * static_cast<float>(scale),
          -F16ToFloat(codes.super_offsets[block]) * static_cast<float>(offset)};
}

ExactWeight WeightAt(const WeightMatrix& matrix, uint64_t row, uint64_t col) {
  const WeightType& type = matrix.layout.type;
  const WeightRow& codes = matrix.rows[row];
  const uint32_t value = codes.values[col];
  double exact = 0;
  switch (type.kind) {
    case WeightKind::kF32:
      exact = std::bit_cast<float>(value);
      return {exact, std::fabs(exact)};
    case WeightKind::kF16:
      exact = F16ToFloat(static_cast<uint16_t>(value));
      return {exact, std::fabs(exact)};
    case WeightKind::kBF16:
      exact = Bf16ToFloat(static_cast<uint16_t>(value));
      return {exact, std::fabs(exact)};
    default:
      break;
  }
  const uint64_t group = type.group_size == 0 ? 0 : col / type.group_size;
  const auto [group_scale, group_minimum] = ScaleOf(type, codes, group);
  const double scale = group_scale;
  if (type.offset == WeightOffset::kMinimum) {
    const double minimum = group_minimum;
    return {scale * value + minimum, std::fabs(scale * value) + std::fabs(minimum)};
  }
  const double middle = MiddleOf(type.kind);
  const double zero = type.offset == WeightOffset::kZeroPoint ? codes.offsets[group] : middle;
  return {scale * (value - zero), std::fabs(scale * (value - zero))};
}

std::vector<float> RandomFloats(size_t count, std::mt19937& random, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace sluice::test
