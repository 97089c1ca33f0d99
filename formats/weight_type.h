// How the values of a weight tensor are stored (FORMAT.md, section "Types").
#ifndef SLUICE_FORMATS_WEIGHT_TYPE_H_
#define SLUICE_FORMATS_WEIGHT_TYPE_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/status.h"

namespace sluice {

enum class WeightKind : uint8_t {
  kF32 = 0,
  kF16 = 1,
  kBF16 = 2,
  kInt8 = 3,
  kInt4 = 4,
  // Types of GGUF, kept to the bit. kInt5 is Q5_0 without an offset and Q5_1 with a minimum; the K
  // types have super-blocks of 256 channels, in which the scales of groups are integers themselves.
  kInt5 = 5,
  kQ4K = 6,
  kQ5K = 7,
  kQ6K = 8,
};
inline constexpr int kWeightKindCount = 9;

// What turns a stored unsigned integer q into a value, with the group's scale s: an f16, or for K
// types the super-block's f16 times the group's integer.
enum class WeightOffset : uint8_t {
  kNone = 0,       // s * (q - MiddleOf(kind))
  kZeroPoint = 1,  // s * (q - z), z one unsigned byte per group
  kMinimum = 2,    // s * q + m, m an f16 per group; K types: an integer times minus an f16
};

struct WeightType {
  WeightKind kind = WeightKind::kF32;
  WeightOffset offset = WeightOffset::kNone;
  // Input channels that share a scale: int8 0 (a whole output row), 16, 32, 64 or 128; int4 32, 64
  // or 128; 32 for int5, Q4_K and Q5_K; 16 for Q6_K; 0 for float kinds. The last group of a row may
  // be short.
  uint16_t group_size = 0;

  bool quantized() const { return kind >= WeightKind::kInt8; }
  // Q4_K, Q5_K, Q6_K: rows are whole super-blocks of kSuperBlockChannels.
  bool has_super_blocks() const { return kind >= WeightKind::kQ4K; }
  bool operator==(const WeightType&) const = default;
};

inline constexpr uint32_t kSuperBlockChannels = 256;

// Bits of a stored integer: 8, 4, 5, 4, 5, 6; 0 for float kinds.
uint32_t IntegerBits(WeightKind kind);

// The q that stands for zero where there is no offset: 128, 8, 16 (Q5_0), 32 (Q6_K).
int32_t MiddleOf(WeightKind kind);

// A combination that this version reads and writes.
bool IsValid(const WeightType& type);

// "f16", "int8", "int8:g32", "int4:g128:zero", "int4:g32:min", "q5_0", "q5_1", "q4_k".
std::string WeightTypeName(const WeightType& type);

}  // namespace sluice

#endif  // SLUICE_FORMATS_WEIGHT_TYPE_H_
