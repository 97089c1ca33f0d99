#include "kernels/peak.h"

#include <cstring>
#include <string_view>

#include "kernels/cpu/peak_loops.h"

namespace sluice {
namespace {

// `ref` computes in float32: one chain after another, as its loops do.
int64_t ArithmeticPeakRef(int64_t rounds) {
  volatile float weight = 0.5f;
  float sums[8] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    const float w = weight;
    for (float& sum : sums) sum += w * sum;
  }
  volatile float sink = sums[0] + sums[7];
  (void)sink;
  return rounds * 8 * 2;
}

uint64_t ReadPeakRef(const std::byte* memory, size_t size_bytes) {
  uint64_t sums[8] = {};
  for (size_t at = 0; at + 64 <= size_bytes; at += 64) {
    uint64_t words[8];
    std::memcpy(words, memory + at, sizeof(words));
    for (size_t i = 0; i < 8; ++i) sums[i] ^= words[i];
  }
  uint64_t all = 0;
  for (uint64_t sum : sums) all ^= sum;
  return all;
}

}  // namespace

PeakLoops PeakLoopsOf(const OpTable& table) {
  const std::string_view name = table.name;
  if (name == "amx") {
    return {ArithmeticPeakAmx, ArithmeticPeakBf16Amx, ArithmeticPeakF32Avx512, ReadPeakAvx512};
  }
  if (name == "avx512") {
    return {ArithmeticPeakAvx512, ArithmeticPeakBf16Avx512, ArithmeticPeakF32Avx512,
            ReadPeakAvx512};
  }
  if (name == "avx2") return {ArithmeticPeakAvx2, nullptr, ArithmeticPeakF32Avx2, ReadPeakAvx2};
  return {ArithmeticPeakRef, ArithmeticPeakRef, ArithmeticPeakRef, ReadPeakRef};
}

}  // namespace sluice
