// Arithmetic on sizes that come from a file: overflow is an answer, never a wrap.
#ifndef SLUICE_FORMATS_CHECKED_H_
#define SLUICE_FORMATS_CHECKED_H_

#include <cstdint>

namespace sluice {

// Each returns false on overflow, and leaves *out unspecified then.
[[nodiscard]] inline bool CheckedAdd(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_add_overflow(a, b, out);
}
[[nodiscard]] inline bool CheckedMul(uint64_t a, uint64_t b, uint64_t* out) {
  return !__builtin_mul_overflow(a, b, out);
}

// Rounds up to a multiple of `unit` (> 0).
[[nodiscard]] inline bool CheckedRoundUp(uint64_t value, uint64_t unit, uint64_t* out) {
  const uint64_t rest = value % unit;
  return CheckedAdd(value, rest == 0 ? 0 : unit - rest, out);
}

// For values that were validated before: plain arithmetic.
inline constexpr uint64_t CeilDiv(uint64_t value, uint64_t unit) {
  return value / unit + (value % unit != 0);
}
inline constexpr uint64_t RoundUp(uint64_t value, uint64_t unit) {
  return CeilDiv(value, unit) * unit;
}

}  // namespace sluice

#endif  // SLUICE_FORMATS_CHECKED_H_
