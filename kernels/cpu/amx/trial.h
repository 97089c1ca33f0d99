// The trial behind TryTiles, a template so that its expectations are tested with the emulation.
#ifndef SLUICE_KERNELS_CPU_AMX_TRIAL_H_
#define SLUICE_KERNELS_CPU_AMX_TRIAL_H_

#include <cstdint>

#include "kernels/cpu/amx/tile.h"

namespace sluice {
namespace {  // NOLINT: every file has its own, built for its instructions

// Operands with the extremes of signed and unsigned bytes, so that a mistaken sign shows.
struct TrialOperands {
  alignas(64) int8_t a[16][64];
  alignas(64) uint8_t b[16][64];
  alignas(64) int32_t sums[16][16];
};

// Whether `sums`, after `rounds` products of k bytes, is what integer arithmetic gives.
bool SumsAreRight(const TrialOperands& o, int k, int rounds, bool signed_b) {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum = 0;
      for (int i = 0; i < k; ++i) {
        const int32_t byte = o.b[i / 4][4 * n + i % 4];
        sum += o.a[m][i] * (signed_b && byte > 127 ? byte - 256 : byte);
      }
      if (o.sums[m][n] != rounds * sum) return false;
    }
  }
  return true;
}

// Small whole numbers, whose products and sums are exact in float32 whatever their order.
struct TrialFloats {
  alignas(64) uint16_t a[16][32];
  alignas(64) uint16_t b[16][32];
  alignas(64) float sums[16][16];
};

int32_t TrialNumber(int row, int i) { return (5 * row + 3 * i) % 15 - 7; }

// bf16 of -7 to 7; the sign is the highest bit.
uint16_t TrialBf16(int32_t n) {
  constexpr uint16_t kBits[] = {0, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};
  return n < 0 ? static_cast<uint16_t>(kBits[-n] | 0x8000) : kBits[n];
}

template <class Tiles>
bool TryFloats() {
  TrialFloats o;
  for (int row = 0; row < 16; ++row) {
    for (int i = 0; i < 32; ++i) {
      o.a[row][i] = TrialBf16(TrialNumber(row, i));
      o.b[row][i] = TrialBf16(TrialNumber(i, row));
    }
  }
  TileConfig config;
  for (int tile = 0; tile < 3; ++tile) config.Set(tile, 16, 64);
  Tiles::Configure(config);
  Tiles::template Zero<2>();
  Tiles::template Load<0>(o.a, 64);
  Tiles::template Load<1>(o.b, 64);
  for (int round = 0; round < 2; ++round) Tiles::template AddBf16<2, 0, 1>();
  Tiles::template Store<2>(o.sums, 64);
  Tiles::Release();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      int32_t sum = 0;
      for (int k = 0; k < 32; ++k) {
        sum += TrialNumber(m, k) * TrialNumber(2 * n + k % 2, k / 2);
      }
      if (o.sums[m][n] != static_cast<float>(2 * sum)) return false;
    }
  }
  return true;
}

// All products of the kernels, twice into the same sums; of bytes for rows of 64 and of 16.
template <class Tiles>
bool TryTilesOf() {
  TrialOperands o;
  for (int row = 0; row < 16; ++row) {
    for (int i = 0; i < 64; ++i) {
      o.a[row][i] = static_cast<int8_t>(37 * row + 11 * i - 128);
      o.b[row][i] = static_cast<uint8_t>(29 * row + 7 * i + 128);
    }
  }
  for (const int k : {64, 16}) {
    TileConfig config;
    config.Set(0, 16, k);
    config.Set(1, k / 4, 64);
    config.Set(2, 16, 64);
    for (const bool signed_b : {true, false}) {
      Tiles::Configure(config);
      Tiles::template Zero<2>();
      Tiles::template Load<0>(o.a, 64);
      Tiles::template Load<1>(o.b, 64);
      for (int round = 0; round < 2; ++round) {
        if (signed_b) {
          Tiles::template AddSignedSigned<2, 0, 1>();
        } else {
          Tiles::template AddSignedUnsigned<2, 0, 1>();
        }
      }
      Tiles::template Store<2>(o.sums, 64);
      Tiles::Release();
      if (!SumsAreRight(o, k, 2, signed_b)) return false;
    }
  }
  return TryFloats<Tiles>();
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_TRIAL_H_
