// Products in bf16 in AMX registers. Only for files compiled for AVX-512 with BF16; everything is
// local to the file that includes it (vector_avx512.h).
//
// Four registers take the sums of 32 tokens and two tiles of weights: each register of operands
// that is loaded serves two products.
#ifndef SLUICE_KERNELS_CPU_AMX_PRODUCTS_BF16_H_
#define SLUICE_KERNELS_CPU_AMX_PRODUCTS_BF16_H_

#include "kernels/cpu/amx/tile.h"
#include "kernels/cpu/matmul_bf16.h"

namespace sluice {
namespace {  // NOLINT: see above

template <class Tiles>
class TileProducts {
 public:
  static constexpr int64_t kSlabBlocks = 4;  // 32 KiB of two tiles

  TileProducts() : shapes_(Shapes()) {}

  void Add(const Bf16Slab& slab) const {
    for (int64_t token = 0; token < slab.tokens; token += 2 * kBf16Tokens) {
      const bool two = slab.tokens - token > kBf16Tokens;
      if (slab.tiles == 2) {
        two ? AddTokens<2, 2>(slab, token) : AddTokens<1, 2>(slab, token);
      } else {
        two ? AddTokens<2, 1>(slab, token) : AddTokens<1, 1>(slab, token);
      }
    }
  }

 private:
  static constexpr int kA = 4, kB = 6;  // registers; 0 to 3 are for sums

  static TileConfig Shapes() {
    TileConfig config;
    for (int tile = 0; tile < kTileRegisters; ++tile) config.Set(tile, 16, 64);
    return config;
  }

  template <int sums>
  static void Begin(const Bf16Slab& slab, int64_t tile, int64_t token) {
    if (slab.first) {
      Tiles::template Zero<sums>();
    } else {
      Tiles::template Load<sums>(slab.sums[tile][token], kRowBytes);
    }
  }

  // One or two registers of tokens, one or two tiles of weights.
  template <int registers, int tiles>
  static void AddTokens(const Bf16Slab& slab, int64_t token) {
    Begin<0>(slab, 0, token);
    if constexpr (tiles == 2) Begin<1>(slab, 1, token);
    if constexpr (registers == 2) Begin<2>(slab, 0, token + kBf16Tokens);
    if constexpr (registers == 2 && tiles == 2) Begin<3>(slab, 1, token + kBf16Tokens);
    const uint16_t* x = slab.x + token / kBf16Tokens * slab.x_stride;
    for (int64_t step = 0; step < slab.steps; ++step) {
      const int64_t at = step * kBf16Tokens * kBf16Channels;
      Tiles::template Load<kB>(slab.weights[0] + step * kBf16StepPairs, kRowBytes);
      Tiles::template Load<kA>(x + at, kRowBytes);
      Tiles::template AddBf16<0, kA, kB>();
      if constexpr (tiles == 2) {
        Tiles::template Load<kB + 1>(slab.weights[1] + step * kBf16StepPairs, kRowBytes);
        Tiles::template AddBf16<1, kA, kB + 1>();
      }
      if constexpr (registers == 2) {
        Tiles::template Load<kA + 1>(x + slab.x_stride + at, kRowBytes);
        Tiles::template AddBf16<2, kA + 1, kB>();
        if constexpr (tiles == 2) Tiles::template AddBf16<3, kA + 1, kB + 1>();
      }
    }
    Tiles::template Store<0>(slab.sums[0][token], kRowBytes);
    if constexpr (tiles == 2) Tiles::template Store<1>(slab.sums[1][token], kRowBytes);
    if constexpr (registers == 2) {
      Tiles::template Store<2>(slab.sums[0][token + kBf16Tokens], kRowBytes);
      if constexpr (tiles == 2) {
        Tiles::template Store<3>(slab.sums[1][token + kBf16Tokens], kRowBytes);
      }
    }
  }

  static constexpr int64_t kRowBytes = 64;

  ConfiguredTiles<Tiles> shapes_;
};

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_PRODUCTS_BF16_H_
