// The loops behind kernels/peak.h, each compiled with the flags of its instruction set.
#ifndef SLUICE_KERNELS_CPU_PEAK_LOOPS_H_
#define SLUICE_KERNELS_CPU_PEAK_LOOPS_H_

#include <cstddef>
#include <cstdint>

namespace sluice {

int64_t ArithmeticPeakAvx2(int64_t rounds);
int64_t ArithmeticPeakF32Avx2(int64_t rounds);
uint64_t ReadPeakAvx2(const std::byte* memory, size_t size_bytes);
int64_t ArithmeticPeakAvx512(int64_t rounds);
int64_t ArithmeticPeakF32Avx512(int64_t rounds);
uint64_t ReadPeakAvx512(const std::byte* memory, size_t size_bytes);
int64_t ArithmeticPeakBf16Avx512(int64_t rounds);
int64_t ArithmeticPeakAmx(int64_t rounds);  // int8
int64_t ArithmeticPeakBf16Amx(int64_t rounds);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_PEAK_LOOPS_H_
