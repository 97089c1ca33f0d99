// exp() for probabilities: the same bits on every platform, unlike the C library's.
#ifndef SLUICE_RUNTIME_EXP_H_
#define SLUICE_RUNTIME_EXP_H_

#include <bit>
#include <cstdint>

namespace sluice {

// exp(x) for x <= 0, within 4 units in the last place; 0 below -700, where it no longer counts.
inline double ExpOfNonPositive(double x) {
  constexpr double kLog2E = 1.4426950408889634;
  constexpr double kLn2High = 0x1.62e42fee00000p-1;  // the product with a small integer is exact
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr double kRound = 0x1.8p52;  // adding it rounds to an integer in the low bits
  const bool vanishes = !(x > -700.0);
  const double bounded = vanishes ? 0.0 : x;
  const double shifted = bounded * kLog2E + kRound;
  const double whole = shifted - kRound;
  const double r = (bounded - whole * kLn2High) - whole * kLn2Low;  // |r| <= ln(2) / 2
  double sum = 1.0 / 6227020800.0;  // Taylor's series, terms 13 to 0
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  // The low bits of `shifted` are the exponent in two's complement.
  const uint64_t exponent = std::bit_cast<uint64_t>(shifted) << 52;
  const double result = std::bit_cast<double>(std::bit_cast<uint64_t>(sum) + exponent);
  return vanishes ? 0.0 : result;
}

}  // namespace sluice

#endif  // SLUICE_RUNTIME_EXP_H_
