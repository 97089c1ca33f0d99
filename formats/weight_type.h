// How the values of a weight tensor are stored (FORMAT.md, section "Types").
#ifndef SLUICE_FORMATS_WEIGHT_TYPE_H_
#define SLUICE_FORMATS_WEIGHT_TYPE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice {

enum class WeightKind : uint8_t { kF32 = 0, kF16 = 1, kBF16 = 2, kInt8 = 3, kInt4 = 4 };

// What turns a stored unsigned integer q into a value, with the group's f16 scale s.
enum class WeightOffset : uint8_t {
  kNone = 0,       // s * (q - 128) for int8, s * (q - 8) for int4
  kZeroPoint = 1,  // s * (q - z), z one unsigned byte per group
  kMinimum = 2,    // s * q + m, m an f16 per group
};

struct WeightType {
  WeightKind kind = WeightKind::kF32;
  WeightOffset offset = WeightOffset::kNone;
  // Input channels that share a scale: int8 0 (a whole output row), 16, 32, 64 or 128; int4 32, 64
  // or 128; 0 for float kinds. The last group of a row may be short.
  uint16_t group_size = 0;

  bool quantized() const { return kind == WeightKind::kInt8 || kind == WeightKind::kInt4; }
  bool operator==(const WeightType&) const = default;
};

// A combination that this version reads and writes.
bool IsValid(const WeightType& type);

// "f16", "int8", "int8:g32", "int4:g128:zero", "int4:g32:min".
std::string WeightTypeName(const WeightType& type);

}  // namespace sluice

#endif  // SLUICE_FORMATS_WEIGHT_TYPE_H_
