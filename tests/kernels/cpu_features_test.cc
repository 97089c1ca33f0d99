// Which tables processors have that are not here, from what CPUID and XCR0 say of them (Intel SDM
// volume 2, CPUID; AMD64 manual volume 3, appendix E).
#include "kernels/cpu_features.h"

#include <cpuid.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <map>
#include <tuple>
#include <utility>

namespace sluice {
namespace {

constexpr uint32_t Bits(std::initializer_list<int> indices) {
  uint32_t bits = 0;
  for (const int index : indices) bits |= uint32_t{1} << index;
  return bits;
}

// Leaf 1, ecx.
constexpr int kFma = 12, kOsxsave = 27, kAvx = 28, kF16c = 29;
// Leaf 7: ebx, ecx, edx; subleaf 1, eax.
constexpr int kAvx2 = 5, kAvx512F = 16, kAvx512Dq = 17, kAvx512Bw = 30, kAvx512Vl = 31;
constexpr int kVnni = 11;
constexpr int kAmxBf16 = 22, kAmxTile = 24, kAmxInt8 = 25;
constexpr int kBf16 = 5;

constexpr uint64_t kX87AndSse = 0x3, kWithAvx = 0x7, kWithAvx512 = 0xe7, kWithTiles = 0x600e7;

struct Cpu {
  std::map<std::pair<uint32_t, uint32_t>, CpuidRegisters> leaves;
  uint64_t xcr0 = 0;

  CpuidRegisters& Leaf(uint32_t leaf, uint32_t subleaf = 0) { return leaves[{leaf, subleaf}]; }
  CpuFeatures Features() const {
    return FeaturesOf({[this](uint32_t leaf, uint32_t subleaf) {
                         const auto found = leaves.find({leaf, subleaf});
                         return found == leaves.end() ? CpuidRegisters{} : found->second;
                       },
                       [this] {
                         EXPECT_NE(xcr0, 0u) << "XGETBV where there is none";
                         return xcr0;
                       }});
  }
};

Cpu Nehalem() {
  Cpu cpu;
  cpu.Leaf(1).ecx = Bits({0, 9, 19, 20, 23});  // SSE3 to SSE4.2, POPCNT
  return cpu;
}
Cpu SandyBridge() {
  Cpu cpu = Nehalem();
  cpu.Leaf(1).ecx |= Bits({kOsxsave, kAvx});
  cpu.xcr0 = kWithAvx;
  return cpu;
}
Cpu IvyBridge() {
  Cpu cpu = SandyBridge();
  cpu.Leaf(1).ecx |= Bits({kF16c});
  return cpu;
}
// FMA and F16C, but no AVX2.
Cpu Piledriver() {
  Cpu cpu = IvyBridge();
  cpu.Leaf(1).ecx |= Bits({kFma});
  return cpu;
}
Cpu Haswell() {
  Cpu cpu = Piledriver();
  cpu.Leaf(7).ebx = Bits({kAvx2});
  return cpu;
}
Cpu SkylakeX() {
  Cpu cpu = Haswell();
  cpu.Leaf(7).ebx |= Bits({kAvx512F, kAvx512Dq, kAvx512Bw, kAvx512Vl});
  cpu.xcr0 = kWithAvx512;
  return cpu;
}
Cpu CascadeLake() {
  Cpu cpu = SkylakeX();
  cpu.Leaf(7).ecx = Bits({kVnni});
  return cpu;
}
Cpu Zen4() {
  Cpu cpu = CascadeLake();
  cpu.Leaf(7).eax = 1;  // the last subleaf
  cpu.Leaf(7, 1).eax = Bits({kBf16});
  return cpu;
}
Cpu SapphireRapids() {
  Cpu cpu = Zen4();
  cpu.Leaf(7).edx = Bits({kAmxBf16, kAmxTile, kAmxInt8});
  cpu.Leaf(0x1d).eax = 1;                               // the last palette
  cpu.Leaf(0x1d, 1) = {0x04002000, 0x00080040, 16, 0};  // 8 registers, 64 bytes a row, 16 rows
  cpu.xcr0 = kWithTiles;
  return cpu;
}

void ExpectFeatures(const Cpu& cpu, bool avx2, bool avx512, bool bf16, bool amx) {
  const CpuFeatures features = cpu.Features();
  EXPECT_EQ(features.avx2, avx2);
  EXPECT_EQ(features.avx512, avx512);
  EXPECT_EQ(features.avx512_bf16, bf16);
  EXPECT_EQ(features.amx, amx);
}

TEST(CpuFeatures, OfProcessorsFromNehalemToSapphireRapids) {
  const std::tuple<const char*, Cpu, bool, bool, bool, bool> cases[] = {
      {"nothing at all", Cpu(), false, false, false, false},
      {"Nehalem", Nehalem(), false, false, false, false},
      {"Sandy Bridge", SandyBridge(), false, false, false, false},
      {"Ivy Bridge", IvyBridge(), false, false, false, false},
      {"Piledriver", Piledriver(), false, false, false, false},
      {"Haswell", Haswell(), true, false, false, false},
      {"Skylake-X", SkylakeX(), true, false, false, false},
      {"Cascade Lake", CascadeLake(), true, true, false, false},
      {"Zen 4", Zen4(), true, true, true, false},
      {"Sapphire Rapids", SapphireRapids(), true, true, true, true}};
  for (const auto& [name, cpu, avx2, avx512, bf16, amx] : cases) {
    SCOPED_TRACE(name);
    ExpectFeatures(cpu, avx2, avx512, bf16, amx);
    EXPECT_EQ(cpu.Features().os_saves_amx, amx);
  }
}

TEST(CpuFeatures, EachBitThatATableNeedsIsAskedFor) {
  for (const int bit : {kFma, kOsxsave, kAvx, kF16c}) {
    Cpu cpu = SapphireRapids();
    cpu.Leaf(1).ecx &= ~Bits({bit});
    ExpectFeatures(cpu, false, false, false, false);
  }
  for (const int bit : {kAvx512F, kAvx512Dq, kAvx512Bw, kAvx512Vl}) {
    Cpu cpu = SapphireRapids();
    cpu.Leaf(7).ebx &= ~Bits({bit});
    ExpectFeatures(cpu, true, false, false, false);
  }
  Cpu without_avx2 = SapphireRapids();
  without_avx2.Leaf(7).ebx &= ~Bits({kAvx2});
  ExpectFeatures(without_avx2, false, false, false, false);
  for (const int bit : {kAmxBf16, kAmxTile, kAmxInt8}) {
    Cpu cpu = SapphireRapids();
    cpu.Leaf(7).edx &= ~Bits({bit});
    ExpectFeatures(cpu, true, true, true, false);
  }
}

// A kernel that is old, or told not to (noxsave, clearcpuid), or a hypervisor that hides a state.
TEST(CpuFeatures, WhatTheOperatingSystemDoesNotSaveIsNotUsed) {
  Cpu cpu = SapphireRapids();
  cpu.xcr0 = kX87AndSse;
  ExpectFeatures(cpu, false, false, false, false);
  cpu.xcr0 = kWithAvx;
  ExpectFeatures(cpu, true, false, false, false);
  for (const uint64_t part : {0x20, 0x40, 0x80}) {  // masks, upper halves, upper registers
    cpu.xcr0 = kWithAvx512 & ~part;
    ExpectFeatures(cpu, true, false, false, false);
  }
  cpu.xcr0 = kWithAvx512;
  ExpectFeatures(cpu, true, true, true, true);
  EXPECT_FALSE(cpu.Features().os_saves_amx);
  for (const uint64_t part : {0x20000, 0x40000}) {  // configuration, data
    cpu.xcr0 = kWithTiles & ~part;
    EXPECT_FALSE(cpu.Features().os_saves_amx);
  }
}

TEST(CpuFeatures, ASubleafThatIsNotThereSaysNothing) {
  Cpu cpu = Zen4();
  cpu.Leaf(7).eax = 0;
  ExpectFeatures(cpu, true, true, false, false);
}

TEST(CpuFeatures, TilesOfOtherShapesAreNotOurs) {
  for (const CpuidRegisters palette : {CpuidRegisters{0x04002000, 0x00040040, 16, 0},
                                       {0x04002000, 0x00080020, 16, 0},
                                       {0x04002000, 0x00080040, 8, 0}}) {
    Cpu cpu = SapphireRapids();
    cpu.Leaf(0x1d, 1) = palette;
    ExpectFeatures(cpu, true, true, true, false);
  }
  Cpu none = SapphireRapids();
  none.Leaf(0x1d).eax = 0;
  ExpectFeatures(none, true, true, true, false);
}

// What the compiler's runtime finds out for itself; clang 14 does not know F16C.
TEST(CpuFeatures, OfThisProcessorAreThoseThatTheCompilerSees) {
  unsigned int eax, ebx, ecx, edx;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  const bool avx2 =
      f16c && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  const bool avx512 =
      avx2 && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512vnni") != 0;
  EXPECT_EQ(CpuHasAvx2(), avx2);
  EXPECT_EQ(CpuHasAvx512(), avx512);
}

}  // namespace
}  // namespace sluice
