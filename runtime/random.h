// Random numbers that are the same on every platform: xoshiro256** (Blackman and Vigna, 2018),
// seeded through SplitMix64.
#ifndef SLUICE_RUNTIME_RANDOM_H_
#define SLUICE_RUNTIME_RANDOM_H_

#include <bit>
#include <cstdint>

namespace sluice {

class Random {
 public:
  explicit Random(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15;
      uint64_t mixed = seed;
      mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
      mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
      word = mixed ^ (mixed >> 31);
    }
  }

  uint64_t Next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // In [0, 1), a multiple of 2^-53.
  double NextUniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  uint64_t state_[4];
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_RANDOM_H_
