// Which tiles of quantized weights a matmul takes together, and in which order (kernels/README.md,
// "Weights from memory"). Local to each file, for the reason given in vector_avx2.h.
#ifndef SLUICE_KERNELS_CPU_TILE_STREAMS_AVX2_H_
#define SLUICE_KERNELS_CPU_TILE_STREAMS_AVX2_H_

#include <algorithm>
#include <cstring>

#include "kernels/cpu/tile_output_avx2.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kBatch = 64;           // tokens that share a tile while it is in cache
constexpr int64_t kPrefetch = 4096;      // bytes ahead, for tiles that are taken by themselves
constexpr int64_t kStreams = 4;          // tiles that few tokens take together
constexpr int64_t kTokensOfStreams = 2;  // that are few: they wait for memory

// Functions for one block of one tile: its parameters from where they lie, and its share of the
// sums of tokens [first, first + count).
template <typename Block>
using LoadFunction = void(const TileLayout& layout, const std::byte* tile, int64_t index,
                          Block* block);
template <typename Block>
using AddFunction = void(const MatmulArgs& args, const Block& block, int64_t index, int64_t first,
                         int64_t count, float (*acc)[kTileRows]);

// `tiles` of them, `distance` apart, for tokens [first, first + count).
template <int64_t tiles, typename Block, LoadFunction<Block> load, AddFunction<Block> add>
void MultiplyTogether(const MatmulArgs& args, int64_t tile, int64_t distance, int64_t first,
                      int64_t count) {
  const TileLayout& layout = *args.layout;
  const auto tile_bytes = static_cast<int64_t>(layout.tile_bytes);
  const uint64_t ahead_bytes =
      layout.num_super_blocks() > 0 ? layout.block_bytes / 2 : layout.block_bytes;
  alignas(32) float acc[tiles][tiles == 1 ? kBatch : kTokensOfStreams][kTileRows];
  for (auto& sums : acc) std::memset(sums, 0, static_cast<size_t>(count) * sizeof(sums[0]));
  Block block;
  for (int64_t index = args.block_begin; index < args.block_end; ++index) {
    for (int64_t n = 0; n < tiles; ++n) {
      load(layout, args.tiles + (tile + n * distance) * tile_bytes, index, &block);
      if (tiles == 1) {
        const auto* ahead = reinterpret_cast<const char*>(block.values) + kPrefetch;
        for (uint64_t at = 0; at < ahead_bytes; at += 64) _mm_prefetch(ahead + at, _MM_HINT_T0);
      }
      add(args, block, index, first, count, acc[n]);
    }
  }
  for (int64_t n = 0; n < tiles; ++n) {
    for (int64_t t = 0; t < count; ++t) {
      StoreTile(args, tile + n * distance, first + t, _mm256_load_ps(acc[n][t]),
                _mm256_load_ps(acc[n][t] + 8));
    }
  }
}

template <typename Block, LoadFunction<Block> load, AddFunction<Block> add>
void MultiplyAllTiles(const MatmulArgs& args) {
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  int64_t done = 0;
  if (args.tokens <= kTokensOfStreams) {
    const int64_t distance = num_tiles / kStreams;
    for (int64_t tile = 0; tile < distance; ++tile) {
      MultiplyTogether<kStreams, Block, load, add>(args, tile, distance, 0, args.tokens);
    }
    done = distance * kStreams;
  }
  for (int64_t first = 0; first < args.tokens; first += kBatch) {
    const int64_t count = std::min(kBatch, args.tokens - first);
    for (int64_t tile = done; tile < num_tiles; ++tile) {
      MultiplyTogether<1, Block, load, add>(args, tile, 0, first, count);
    }
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_TILE_STREAMS_AVX2_H_
