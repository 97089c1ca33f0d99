#include "formats/weight_type.h"

namespace sluice {

uint32_t IntegerBits(WeightKind kind) {
  switch (kind) {
    case WeightKind::kF32:
    case WeightKind::kF16:
    case WeightKind::kBF16:
      return 0;
    case WeightKind::kInt8:
      return 8;
    case WeightKind::kInt4:
    case WeightKind::kQ4K:
      return 4;
    case WeightKind::kInt5:
    case WeightKind::kQ5K:
      return 5;
    case WeightKind::kQ6K:
      return 6;
  }
  return 0;
}

int32_t MiddleOf(WeightKind kind) {
  const uint32_t bits = IntegerBits(kind);
  return bits == 0 ? 0 : int32_t{1} << (bits - 1);
}

bool IsValid(const WeightType& type) {
  const uint16_t group = type.group_size;
  const bool known_offset = type.offset == WeightOffset::kNone ||
                            type.offset == WeightOffset::kZeroPoint ||
                            type.offset == WeightOffset::kMinimum;
  switch (type.kind) {
    case WeightKind::kF32:
    case WeightKind::kF16:
    case WeightKind::kBF16:
      return group == 0 && type.offset == WeightOffset::kNone;
    case WeightKind::kInt8:
      return known_offset &&
             (group == 0 || group == 16 || group == 32 || group == 64 || group == 128);
    case WeightKind::kInt4:
      return known_offset && (group == 32 || group == 64 || group == 128);
    case WeightKind::kInt5:
      return (type.offset == WeightOffset::kNone || type.offset == WeightOffset::kMinimum) &&
             group == 32;
    case WeightKind::kQ4K:
    case WeightKind::kQ5K:
      return type.offset == WeightOffset::kMinimum && group == 32;
    case WeightKind::kQ6K:
      return type.offset == WeightOffset::kNone && group == 16;
  }
  return false;
}

std::string WeightTypeName(const WeightType& type) {
  std::string name;
  switch (type.kind) {
    case WeightKind::kF32:
      return "f32";
    case WeightKind::kF16:
      return "f16";
    case WeightKind::kBF16:
      return "bf16";
    case WeightKind::kInt8:
      name = "int8";
      break;
    case WeightKind::kInt4:
      name = "int4";
      break;
    case WeightKind::kInt5:
      return type.offset == WeightOffset::kMinimum ? "q5_1" : "q5_0";
    case WeightKind::kQ4K:
      return "q4_k";
    case WeightKind::kQ5K:
      return "q5_k";
    case WeightKind::kQ6K:
      return "q6_k";
  }
  if (type.group_size != 0) name += ":g" + std::to_string(type.group_size);
  if (type.offset == WeightOffset::kZeroPoint) name += ":zero";
  if (type.offset == WeightOffset::kMinimum) name += ":min";
  return name;
}

}  // namespace sluice
