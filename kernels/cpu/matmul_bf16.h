// Products in bf16 around the instructions that multiply. Only for files compiled for AVX-512 with
// BF16; everything is local to the file that includes it (vector_avx512.h).
//
// Two tiles of weights are dequantized, a slab of channels at a time, once for the tokens of a
// batch: the slab stays in the first-level cache while the tokens pass. Sums wait in memory from
// one slab to the next.
#ifndef SLUICE_KERNELS_CPU_MATMUL_BF16_H_
#define SLUICE_KERNELS_CPU_MATMUL_BF16_H_

#include <algorithm>

#include "kernels/cpu/panel_bf16.h"
#include "kernels/cpu/tile_output_avx512.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kBf16Batch = 512;   // tokens that share dequantized weights
constexpr int64_t kBf16Tiles = 2;     // of weights
constexpr int64_t kBf16Ahead = 4096;  // bytes, of weights that are asked for beside those in use
constexpr int64_t kBf16StepPairs = kBf16Channels / 2;

using Bf16Sums = float[kBf16Batch][kTileRows];

// What the instructions get: the weights of 1 or 2 tiles and the activations of some tokens for
// `steps` steps of 32 channels, and where the sums are, for whole registers of tokens.
struct Bf16Slab {
  const __m512i* weights[kBf16Tiles];  // [steps][16 pairs of channels]
  const uint16_t* x;                   // of the first token: [steps][16 tokens][32 channels]
  int64_t x_stride;                    // elements, from 16 tokens to the next ones
  int64_t tiles, tokens, steps;
  bool first;  // there are no sums yet
  Bf16Sums* sums;
};

// Any weight type, any number of tokens. `Products` has the function Add for a Bf16Slab, the
// constant kSlabBlocks, and lives while it is used. REQUIRES: args as in ops.h with x_bf16.
template <class Products>
void MatmulBf16(const MatmulArgs& args) {
  constexpr int64_t kSlabBlocks = Products::kSlabBlocks;
  const Products products;
  alignas(64) Bf16Sums sums[kBf16Tiles];
  Bf16Block weights[kBf16Tiles][kSlabBlocks];
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  const int64_t all_steps = args.x_bf16->padded_cols / kBf16Channels;
  constexpr int64_t kBlockSteps = kBlockChannels / kBf16Channels;
  constexpr int64_t kStepElements = kBf16Tokens * kBf16Channels;
  for (int64_t first = 0; first < args.tokens; first += kBf16Batch) {
    const int64_t count = std::min(kBf16Batch, args.tokens - first);
    const uint16_t* x = args.x_bf16->values + first / kBf16Tokens * all_steps * kStepElements;
    for (int64_t tile = 0; tile < num_tiles; tile += kBf16Tiles) {
      const int64_t tiles = std::min(kBf16Tiles, num_tiles - tile);
      for (int64_t begin = args.block_begin; begin < args.block_end; begin += kSlabBlocks) {
        const int64_t end = std::min(begin + kSlabBlocks, args.block_end);
        for (int64_t n = 0; n < tiles; ++n) {
          const std::byte* bytes =
              args.tiles + (tile + n) * static_cast<int64_t>(args.layout->tile_bytes);
          for (int64_t block = begin; block < end; ++block) {
            DequantizeBf16(*args.layout, bytes, block, kBf16Ahead, weights[n][block - begin]);
          }
        }
        const int64_t steps = std::min(end * kBlockSteps, all_steps) - begin * kBlockSteps;
        products.Add({{weights[0][0], weights[1][0]},
                      x + begin * kBlockSteps * kStepElements,
                      all_steps * kStepElements,
                      tiles,
                      count,
                      steps,
                      begin == args.block_begin,
                      sums});
      }
      for (int64_t n = 0; n < tiles; ++n) {
        for (int64_t t = 0; t < count; ++t) {
          StoreToken(args, tile + n, first + t, _mm512_load_ps(sums[n][t]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_MATMUL_BF16_H_
