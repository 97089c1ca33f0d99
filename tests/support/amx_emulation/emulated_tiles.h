// Intel AMX on processors without it, for tests: the functions of kernels/cpu/amx/tile.h with the
// meaning that the Intel SDM gives them (volume 2, LDTILECFG, TILELOADD, TDPBSSD and others). What
// a processor answers with an exception ends the program with a report here: shapes that palette 1
// does not have, registers without a shape, operands whose shapes do not fit. So does a load of
// bytes that the address sanitizer knows to be nobody's.
#ifndef SLUICE_TESTS_SUPPORT_AMX_EMULATION_EMULATED_TILES_H_
#define SLUICE_TESTS_SUPPORT_AMX_EMULATION_EMULATED_TILES_H_

#include <cstdint>

#include "kernels/cpu/amx/tile.h"

namespace sluice::test {

struct EmulatedTiles {
  static void Configure(const TileConfig& config);
  static void Release();

  template <int tile>
  static void Zero() {
    Zero(tile);
  }
  template <int tile>
  static void Load(const void* from, int64_t stride) {
    Load(tile, from, stride);
  }
  template <int tile>
  static void Store(void* to, int64_t stride) {
    Store(tile, to, stride);
  }
  template <int sums, int a, int b>
  static void AddSignedSigned() {
    AddBytes(sums, a, b, true);
  }
  template <int sums, int a, int b>
  static void AddSignedUnsigned() {
    AddBytes(sums, a, b, false);
  }
  template <int sums, int a, int b>
  static void AddBf16() {
    AddBf16(sums, a, b);
  }

  // Of the calling thread.
  static bool configured();
  static int64_t products();  // instructions since the thread began
  static int64_t configurations();

 private:
  static void Zero(int tile);
  static void Load(int tile, const void* from, int64_t stride);
  static void Store(int tile, void* to, int64_t stride);
  static void AddBytes(int sums, int a, int b, bool signed_b);
  static void AddBf16(int sums, int a, int b);
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_AMX_EMULATION_EMULATED_TILES_H_
