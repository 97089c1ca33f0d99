#include "tests/support/sha256.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace sluice {
namespace {

// The first 32 bits of the fractional part of a prime's square or cube root. long double has 64
// bits, enough for the whole part and these.
uint32_t FractionOfRoot(int prime, bool cube) {
  const long double root = cube ? std::cbrt(static_cast<long double>(prime))
                                : std::sqrt(static_cast<long double>(prime));
  return static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0L);
}

std::vector<int> FirstPrimes(size_t count) {
  std::vector<int> primes;
  for (int n = 2; primes.size() < count; ++n) {
    bool is_prime = true;
    for (const int p : primes) is_prime = is_prime && n % p != 0;
    if (is_prime) primes.push_back(n);
  }
  return primes;
}

void AddBlock(const uint8_t* block, std::array<uint32_t, 8>* state) {
  static const std::vector<int> primes = FirstPrimes(64);
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) {
    w[i] = uint32_t{block[4 * i]} << 24 | uint32_t{block[4 * i + 1]} << 16 |
           uint32_t{block[4 * i + 2]} << 8 | block[4 * i + 3];
  }
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t a = w[i - 15];
    const uint32_t b = w[i - 2];
    w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) + w[i - 7] +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
  }
  std::array<uint32_t, 8> s = *state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t sum1 = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
    const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
    const uint32_t t1 = s[7] + sum1 + choice + FractionOfRoot(primes[i], true) + w[i];
    const uint32_t sum0 = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
    const uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    s = {t1 + sum0 + majority, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
  }
  for (size_t i = 0; i < 8; ++i) (*state)[i] += s[i];
}

}  // namespace

std::string Sha256Hex(std::span<const std::byte> bytes) {
  std::array<uint32_t, 8> state;
  const std::vector<int> primes = FirstPrimes(8);
  for (size_t i = 0; i < 8; ++i) state[i] = FractionOfRoot(primes[i], false);
  std::vector<uint8_t> padded(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) padded[i] = std::to_integer<uint8_t>(bytes[i]);
  padded.push_back(0x80);
  while (padded.size() % 64 != 56) padded.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8) {
    padded.push_back(static_cast<uint8_t>(uint64_t{bytes.size()} * 8 >> shift));
  }
  for (size_t i = 0; i < padded.size(); i += 64) AddBlock(padded.data() + i, &state);
  std::string hex;
  for (const uint32_t word : state) hex += fmt::format("{:08x}", word);
  return hex;
}

}  // namespace sluice
