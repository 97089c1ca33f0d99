#include "kernels/cpu_features.h"

#include <cpuid.h>

namespace sluice {
namespace {

bool Bit(uint32_t value, int index) { return ((value >> index) & 1) != 0; }
bool All(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

CpuidRegisters Cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

uint64_t Xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

bool HasAmx(const CpuidSource& source) {
  const CpuidRegisters features = source.cpuid(7, 0);
  const bool bf16 = Bit(features.edx, 22);
  const bool tile = Bit(features.edx, 24);
  const bool int8 = Bit(features.edx, 25);
  if (!bf16 || !tile || !int8) return false;
  // Leaf 1D: palette 1 has at least 8 registers of 16 rows of 64 bytes.
  constexpr uint32_t kTileInformation = 0x1d;
  if (source.cpuid(kTileInformation, 0).eax < 1) return false;
  const CpuidRegisters palette = source.cpuid(kTileInformation, 1);
  return palette.ebx >> 16 >= 8 && (palette.ebx & 0xffff) >= 64 && (palette.ecx & 0xffff) >= 16;
}

const CpuFeatures& OfThisCpu() {
  static const CpuFeatures features = FeaturesOf({Cpuid, Xcr0});
  return features;
}

}  // namespace

CpuFeatures FeaturesOf(const CpuidSource& source) {
  CpuFeatures features;
  const CpuidRegisters first = source.cpuid(1, 0);
  const bool osxsave = Bit(first.ecx, 27);
  if (!osxsave) return features;
  const uint64_t saved = source.xcr0();
  constexpr uint64_t kTiles = 3u << 17;  // configuration and data
  features.os_saves_amx = All(saved, kTiles);

  const CpuidRegisters seventh = source.cpuid(7, 0);
  const bool avx = Bit(first.ecx, 28);
  const bool fma = Bit(first.ecx, 12);
  const bool f16c = Bit(first.ecx, 29);
  const bool avx2 = Bit(seventh.ebx, 5);
  constexpr uint64_t kSseAndAvx = 0x6;
  features.avx2 = avx && fma && f16c && avx2 && All(saved, kSseAndAvx);

  const bool f = Bit(seventh.ebx, 16);
  const bool dq = Bit(seventh.ebx, 17);
  const bool bw = Bit(seventh.ebx, 30);
  const bool vl = Bit(seventh.ebx, 31);
  const bool vnni = Bit(seventh.ecx, 11);
  constexpr uint64_t kAvx512 = 0xe6;  // these, mask registers, upper halves, upper registers
  features.avx512 = features.avx2 && f && dq && bw && vl && vnni && All(saved, kAvx512);
  if (!features.avx512) return features;

  // Leaf 7 says how many subleaves it has.
  features.avx512_bf16 = seventh.eax >= 1 && Bit(source.cpuid(7, 1).eax, 5);
  features.amx = HasAmx(source);
  return features;
}

bool CpuHasAvx2() { return OfThisCpu().avx2; }
bool CpuHasAvx512() { return OfThisCpu().avx512; }
bool CpuHasAvx512Bf16() { return OfThisCpu().avx512_bf16; }
bool CpuHasAmx() { return OfThisCpu().amx; }
bool OsSavesAmx() { return OfThisCpu().os_saves_amx; }

}  // namespace sluice
