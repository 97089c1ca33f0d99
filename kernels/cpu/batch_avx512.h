// Products of many tokens with weights in groups of 16 or 32 whose integers are put together from
// several words: 32 channels of two tiles are unpacked into 16 registers and stay there while the
// tokens of a batch pass by, whose sums wait in the first-level cache. (int4 and int8 in groups of
// 32 gain nothing by it: their unpacking hides behind products, and their sums stay in registers.)
// Only for files compiled for AVX-512; everything is local to the file that includes it
// (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_BATCH_AVX512_H_
#define SLUICE_KERNELS_CPU_BATCH_AVX512_H_

#include <immintrin.h>

#include <bit>
#include <cstring>

#include "kernels/cpu/tile_output_avx512.h"
#include "kernels/cpu/vnni_avx512.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kBatchTokens = 64;
constexpr int kBatchTiles = 2;          // that share each broadcast of activations
constexpr int64_t kPanelChannels = 32;  // that are in registers
constexpr int kPanelSteps = kPanelChannels / 4;

// A group of 16 rows.
struct GroupOfRows {
  __m512 scale;
  __m512 minimum;  // where there are minima
};

// Where a group's sum of q x begins: at -middle b, which is 0 with minima.
template <int32_t middle>
inline __m512i FirstSum(int32_t sum) {
  if constexpr (middle == 0) {
    return _mm512_setzero_si512();
  } else {
    static_assert(std::has_single_bit(static_cast<uint32_t>(middle)));
    constexpr unsigned kShift = std::countr_zero(static_cast<uint32_t>(middle));
    const __m512i offset = _mm512_slli_epi32(_mm512_set1_epi32(sum), kShift);
    return _mm512_sub_epi32(_mm512_setzero_si512(), offset);
  }
}

// Adds 32 channels of some tiles to the sums of `count` tokens (kernels/README.md).
template <int32_t middle, int groups, int tiles>
__attribute__((always_inline)) inline void AddPanel(const __m512i (&weights)[tiles][kPanelSteps],
                                                    const GroupOfRows (&rows)[tiles][groups],
                                                    Tokens x, int64_t count,
                                                    float (*acc)[tiles][kTileRows]) {
  constexpr int kGroupSteps = kPanelSteps / groups;
  for (int64_t t = 0; t < count; ++t) {
    __m512i sums[groups][tiles];
#pragma GCC unroll 2
    for (int g = 0; g < groups; ++g) {
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) sums[g][n] = FirstSum<middle>(x.sums[g]);
    }
#pragma GCC unroll 8
    for (int step = 0; step < kPanelSteps; ++step) {
      const __m512i four = Broadcast4(x.values + 4 * step);
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) {
        __m512i& sum = sums[step / kGroupSteps][n];
        sum = AddDots(sum, weights[n][step], four);
      }
    }
    __m512 totals[tiles];
#pragma GCC unroll 2
    for (int n = 0; n < tiles; ++n) totals[n] = _mm512_load_ps(acc[t][n]);
#pragma GCC unroll 2
    for (int g = 0; g < groups; ++g) {
      const __m512 scale = _mm512_set1_ps(x.scales[g]);
      __m512 product = _mm512_setzero_ps();
      if constexpr (middle == 0) {
        product = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_set1_epi32(x.sums[g])));
      }
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) {
        const __m512 factor = _mm512_mul_ps(rows[n][g].scale, scale);
        totals[n] = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(sums[g][n]), totals[n]);
        if constexpr (middle == 0) {
          totals[n] = _mm512_fmadd_ps(rows[n][g].minimum, product, totals[n]);
        }
      }
    }
#pragma GCC unroll 2
    for (int n = 0; n < tiles; ++n) _mm512_store_ps(acc[t][n], totals[n]);
    x.values += x.stride;
    x.scales += x.groups;
    x.sums += x.groups;
  }
}

// Lines of y that a batch writes. Rows of a batch of tokens lie far apart, and each is another miss
// when it is stored. Inlined by force, because GCC 12 drops calls of a function that only
// prefetches.
__attribute__((always_inline)) inline void PrefetchRows(const MatmulArgs& args, int64_t tile,
                                                        int64_t first, int64_t count) {
  for (int64_t t = first; t < first + count; ++t) {
    __builtin_prefetch(args.y + t * args.y_stride + tile * kTileRows, 1);
  }
}

// Tiles `tile` and, where there are two, `tile + 1`, for tokens [first, first + count), of which
// there are at most kBatchTokens. A Source tells how a tile lies: `kMiddle`, the zero point of all
// groups, 0 with minima; `kGroups` in 32 channels, and
//   Block BlockAt(tile, index)                                      128 channels
//   void Unpack(block, panel, weights[kPanelSteps], rows[kGroups])  channels from 32 * panel on
template <int tiles, typename Source>
void MultiplyBatch(const MatmulArgs& args, const Source& source, int64_t tile, int64_t first,
                   int64_t count) {
  alignas(64) float acc[kBatchTokens][tiles][kTileRows];
  std::memset(acc, 0, static_cast<size_t>(count) * sizeof(acc[0]));
  const TileLayout& layout = *args.layout;
  for (int64_t index = args.block_begin; index < args.block_end; ++index) {
    typename Source::Block blocks[tiles];
    for (int n = 0; n < tiles; ++n) {
      const auto place = static_cast<uint64_t>(tile + n) * layout.tile_bytes;
      blocks[n] = source.BlockAt(args.tiles + place, index);
      if (index + 1 == args.block_end) PrefetchRows(args, tile + n, first, count);
    }
    const int64_t panels = layout.block_channels(static_cast<uint64_t>(index)) / kPanelChannels;
    for (int64_t panel = 0; panel < panels; ++panel) {
      __m512i weights[tiles][kPanelSteps];
      GroupOfRows rows[tiles][Source::kGroups];
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) Source::Unpack(blocks[n], panel, weights[n], rows[n]);
      const int64_t group = (index * kBlockChannels / kPanelChannels + panel) * Source::kGroups;
      AddPanel<Source::kMiddle, Source::kGroups, tiles>(
          weights, rows, TokensAt(*args.xq, first, group), count, acc);
    }
  }
  for (int n = 0; n < tiles; ++n) {
    for (int64_t t = 0; t < count; ++t) {
      StoreToken(args, tile + n, first + t, _mm512_load_ps(acc[t][n]));
    }
  }
}

// All tiles for all tokens, in batches of nearly equal size.
template <typename Source>
void MultiplyBatches(const MatmulArgs& args, const Source& source, int64_t num_tiles) {
  const int64_t batches = (args.tokens + kBatchTokens - 1) / kBatchTokens;
  for (int64_t tile = 0; tile < num_tiles; tile += kBatchTiles) {
    int64_t first = 0;
    for (int64_t batch = 0; batch < batches; ++batch) {
      const int64_t count = (args.tokens - first + batches - batch - 1) / (batches - batch);
      if (tile + 1 == num_tiles) {
        MultiplyBatch<1>(args, source, tile, first, count);
      } else {
        MultiplyBatch<kBatchTiles>(args, source, tile, first, count);
      }
      first += count;
    }
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_BATCH_AVX512_H_
