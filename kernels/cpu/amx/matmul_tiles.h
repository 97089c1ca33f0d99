// Products of quantized weights and activations in AMX registers, for batches. Only for files
// compiled for AVX-512; everything is local to the file that includes it (vector_avx512.h).
//
// Weights are B: a block of four tiles of 16 rows is unpacked once for 64 tokens. Activations are
// A, 16 tokens by the channels of a step (64, or a group if that is less). A slab of 1,024 channels
// is copied for up to 16 tiles: rows that lie a power of two apart would evict each other from the
// cache. The sums of a group go to memory, and AVX-512 scales and adds them to the tokens' float32
// sums, while AMX is busy with the next ones.
#ifndef SLUICE_KERNELS_CPU_AMX_MATMUL_TILES_H_
#define SLUICE_KERNELS_CPU_AMX_MATMUL_TILES_H_

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/amx/tile.h"
#include "kernels/cpu/amx/unpack.h"
#include "kernels/cpu/tile_output_avx512.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kMostTiles = 16;     // that share a slab of packed activations
constexpr int64_t kSlabBlocks = 8;     // of 128 channels
constexpr int64_t kPanels = 4;         // tiles of weights that share packed activations
constexpr int64_t kBatch = 64;         // tokens that share an unpacked block
constexpr int64_t kTokens = 16;        // of a register
constexpr int64_t kAhead = 4096;       // bytes, of weights that are asked for beside those in use
constexpr int64_t kSumsBytes = 64;     // of a token: 16 rows
constexpr int kA = 0, kB = 1, kC = 5;  // registers: one for A, four for B, three for sums
constexpr int kSums = 3;

// What the sums of products need before they are weighted: nothing, the weights' minima, or their
// zero points.
enum class Correction { kNone, kMinimum, kZeroPoint };

// A block of 128 channels of the tokens of a batch.
struct TokenBlock {
  alignas(64) int8_t values[kBatch][kBlockChannels];
  alignas(64) float scales[kBatch][kMaxGroups];
  // Minima: scale times sum of the integers. Zero points: that sum, an int32.
  alignas(64) float corrections[kBatch][kMaxGroups];
};

using GroupSums = int32_t[2][2][kTokens][kTileRows];  // of two groups, of two tiles

struct Scratch {
  alignas(64) float acc[kMostTiles][kBatch][kTileRows];
  alignas(64) GroupSums sums[2];
  Panel panels[kPanels];
  TokenBlock slab[kSlabBlocks];
};

// Sums that were stored and wait to be weighted.
struct Pending {
  int64_t group, token, tokens;
  int64_t buffer;
};

// Block `index` of tokens [first, first + count).
void PackTokens(const QuantizedActivations& x, Correction correction, int64_t first, int64_t count,
                int64_t index, TokenBlock* out) {
  const int64_t begin = index * kBlockChannels;
  const int64_t channels = std::min<int64_t>(kBlockChannels, x.padded_cols - begin);
  const int64_t first_group = begin / x.group_size;
  const int64_t groups = std::min<int64_t>(kBlockChannels / x.group_size, x.groups - first_group);
  const auto mask = static_cast<__mmask8>((1u << groups) - 1);
  for (int64_t t = 0; t < count; ++t) {
    const int64_t token = first + t;
    const int8_t* values = x.values + token * x.padded_cols + begin;
    if (channels == kBlockChannels) {
      Prefetch(values, kBlockChannels);
      Prefetch(values, kBlockChannels + 64);
      _mm512_store_si512(out->values[t], _mm512_loadu_si512(values));
      _mm512_store_si512(out->values[t] + 64, _mm512_loadu_si512(values + 64));
    } else {
      std::memset(out->values[t], 0, kBlockChannels);
      std::memcpy(out->values[t], values, static_cast<size_t>(channels));
    }
    const int64_t group = token * x.groups + first_group;
    const __m256 scales = _mm256_maskz_loadu_ps(mask, x.scales + group);
    _mm256_store_ps(out->scales[t], scales);
    if (correction == Correction::kNone) continue;
    const __m256i sums = _mm256_maskz_loadu_epi32(mask, x.sums + group);
    _mm256_store_ps(out->corrections[t], correction == Correction::kZeroPoint
                                             ? _mm256_castsi256_ps(sums)
                                             : _mm256_mul_ps(scales, _mm256_cvtepi32_ps(sums)));
  }
  // Tokens that fill a register are zero.
  for (int64_t t = count; t % kTokens != 0; ++t) std::memset(out->values[t], 0, kBlockChannels);
}

// acc + a group's share (kernels/README.md).
template <Correction correction, int groups, int tiles>
void AddGroups(const Pending& step, const Panel* panels, const TokenBlock& x, const GroupSums& sums,
               float (*all)[kBatch][kTileRows]) {
  __m512 scales[tiles][groups];
  __m512 minimums[tiles][groups];
  __m512i zeros[tiles][groups];
  for (int n = 0; n < tiles; ++n) {
    const Panel& panel = panels[n];
    for (int g = 0; g < groups; ++g) {
      scales[n][g] = _mm512_load_ps(panel.scales[step.group + g]);
      if constexpr (correction == Correction::kMinimum) {
        minimums[n][g] = _mm512_load_ps(panel.minimums[step.group + g]);
      } else if constexpr (correction == Correction::kZeroPoint) {
        zeros[n][g] = _mm512_load_si512(panel.zeros[step.group + g]);
      }
    }
  }
  for (int64_t t = 0; t < step.tokens; ++t) {
    const int64_t token = step.token + t;
    __m512 acc[tiles];
    for (int n = 0; n < tiles; ++n) acc[n] = _mm512_load_ps(all[n][token]);
#pragma GCC unroll 2
    for (int g = 0; g < groups; ++g) {
      const __m512 scale = _mm512_set1_ps(x.scales[token][step.group + g]);
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) {
        __m512i products = _mm512_load_si512(sums[g][n][t]);
        if constexpr (correction == Correction::kZeroPoint) {
          // z below 256 and |b| up to 128 x 127 fit 16 bits: one product of words gives -z b.
          const float correction_bits = x.corrections[token][step.group + g];
          const __m512i sum = _mm512_castps_si512(_mm512_set1_ps(correction_bits));
          products = _mm512_add_epi32(products, _mm512_madd_epi16(zeros[n][g], sum));
        }
        const __m512 factor = _mm512_mul_ps(scales[n][g], scale);
        acc[n] = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(products), acc[n]);
        if constexpr (correction == Correction::kMinimum) {
          const __m512 product = _mm512_set1_ps(x.corrections[token][step.group + g]);
          acc[n] = _mm512_fmadd_ps(minimums[n][g], product, acc[n]);
        }
      }
    }
    for (int n = 0; n < tiles; ++n) _mm512_store_ps(all[n][token], acc[n]);
  }
}

// How the registers divide a block.
struct Steps {
  int64_t channels;  // of A: 64, or a group if that is less
  int64_t groups;    // of two steps: two, or one of 128 channels
  bool unsigned_weights;
};

Steps StepsOf(const WeightType& type, int64_t group_size) {
  return {std::min<int64_t>(group_size, 64), group_size == kBlockChannels ? 1 : 2,
          HasUnsignedPanel(type)};
}

TileConfig ConfigFor(const Steps& steps) {
  TileConfig config;
  const auto row_bytes = static_cast<int>(steps.channels);
  config.Set(kA, kTokens, row_bytes);
  for (int i = 0; i < 4; ++i) config.Set(kB + i, row_bytes / 4, 64);
  for (int i = 0; i < kSums; ++i) config.Set(kC + i, kTokens, 64);
  return config;
}

template <class Tiles, bool is_unsigned, int sums, int b>
void AddProducts() {
  if constexpr (is_unsigned) {
    Tiles::template AddSignedUnsigned<sums, kA, b>();
  } else {
    Tiles::template AddSignedSigned<sums, kA, b>();
  }
}

// The sums of 16 tokens and the steps whose weights are in the registers. Sums of different groups
// take registers in turn, from `phase` on, so that none waits for the one before it.
template <class Tiles, bool is_unsigned, bool one_group, int tiles, int phase>
void MultiplyTokens(const int8_t* x, int64_t step_bytes, GroupSums sums) {
  constexpr int c0 = kC + phase % kSums, c1 = kC + (phase + 1) % kSums;
  constexpr int c2 = kC + (phase + tiles) % kSums, c3 = kC + (phase + tiles + 1) % kSums;
  Tiles::template Zero<c0>();
  if constexpr (tiles == 2) Tiles::template Zero<c1>();
  Tiles::template Load<kA>(x, kBlockChannels);
  AddProducts<Tiles, is_unsigned, c0, kB>();
  if constexpr (tiles == 2) AddProducts<Tiles, is_unsigned, c1, kB + 2>();
  if constexpr (one_group) {
    Tiles::template Load<kA>(x + step_bytes, kBlockChannels);
    AddProducts<Tiles, is_unsigned, c0, kB + 1>();
    if constexpr (tiles == 2) AddProducts<Tiles, is_unsigned, c1, kB + 3>();
  }
  Tiles::template Store<c0>(sums[0][0], kSumsBytes);
  if constexpr (tiles == 2) Tiles::template Store<c1>(sums[0][1], kSumsBytes);
  if constexpr (one_group) return;
  Tiles::template Zero<c2>();
  if constexpr (tiles == 2) Tiles::template Zero<c3>();
  Tiles::template Load<kA>(x + step_bytes, kBlockChannels);
  AddProducts<Tiles, is_unsigned, c2, kB + 1>();
  if constexpr (tiles == 2) AddProducts<Tiles, is_unsigned, c3, kB + 3>();
  Tiles::template Store<c2>(sums[1][0], kSumsBytes);
  if constexpr (tiles == 2) Tiles::template Store<c3>(sums[1][1], kSumsBytes);
}

// A block of one or two tiles for the tokens of a batch.
template <class Tiles, Correction correction, bool is_unsigned, bool one_group, int tiles>
void MultiplyBlock(const Panel* panels, const TokenBlock& x, int64_t groups, int64_t count,
                   int64_t step_channels, GroupSums* sums, float (*acc)[kBatch][kTileRows]) {
  constexpr int kGroups = one_group ? 1 : 2;
  constexpr int kStored = tiles * kGroups;
  Pending pending = {};
  const auto add = [&] {
    if (pending.tokens == 0) return;
    if (kGroups == 1 || groups - pending.group == 1) {
      AddGroups<correction, 1, tiles>(pending, panels, x, sums[pending.buffer], acc);
    } else {
      AddGroups<correction, 2, tiles>(pending, panels, x, sums[pending.buffer], acc);
    }
  };
  const int64_t rows = step_channels / 4;
  for (int64_t group = 0, step = 0; group < groups; group += kGroups, step += 2) {
    Tiles::template Load<kB>(panels[0].values[step * rows], 64);
    Tiles::template Load<kB + 1>(panels[0].values[(step + 1) * rows], 64);
    if constexpr (tiles == 2) {
      Tiles::template Load<kB + 2>(panels[1].values[step * rows], 64);
      Tiles::template Load<kB + 3>(panels[1].values[(step + 1) * rows], 64);
    }
    for (int64_t token = 0; token < count; token += kTokens) {
      const int8_t* values = x.values[token] + step * step_channels;
      const int64_t buffer = 1 - pending.buffer;
      switch (token / kTokens % kSums) {
        case 0:
          MultiplyTokens<Tiles, is_unsigned, one_group, tiles, 0>(values, step_channels,
                                                                  sums[buffer]);
          break;
        case 1:
          MultiplyTokens<Tiles, is_unsigned, one_group, tiles, kStored>(values, step_channels,
                                                                        sums[buffer]);
          break;
        default:
          MultiplyTokens<Tiles, is_unsigned, one_group, tiles, 2 * kStored>(values, step_channels,
                                                                            sums[buffer]);
          break;
      }
      add();
      pending = {group, token, std::min(kTokens, count - token), buffer};
    }
  }
  add();
}

// Tiles [tile, tile + tiles) for the tokens [first, first + count).
template <class Tiles, Correction correction, bool is_unsigned, bool one_group>
void MultiplyBatch(const MatmulArgs& args, const Steps& steps, int64_t tile, int64_t tiles,
                   int64_t first, int64_t count, Scratch* s) {
  const TileLayout& layout = *args.layout;
  const QuantizedActivations& x = *args.xq;
  for (int64_t n = 0; n < tiles; ++n) {
    std::memset(s->acc[n], 0, static_cast<size_t>(count) * sizeof(s->acc[n][0]));
  }
  for (int64_t begin = args.block_begin; begin < args.block_end; begin += kSlabBlocks) {
    const int64_t end = std::min(begin + kSlabBlocks, args.block_end);
    for (int64_t block = begin; block < end; ++block) {
      PackTokens(x, correction, first, count, block, &s->slab[block - begin]);
    }
    for (int64_t panel = 0; panel < tiles; panel += kPanels) {
      const int64_t panels = std::min(kPanels, tiles - panel);
      for (int64_t block = begin; block < end; ++block) {
        for (int64_t n = 0; n < panels; ++n) {
          const int64_t number = tile + panel + n;
          Unpack(layout, args.tiles + number * static_cast<int64_t>(layout.tile_bytes), block,
                 kAhead, &s->panels[n]);
        }
        const int64_t groups = std::min<int64_t>(kBlockChannels / x.group_size,
                                                 x.groups - block * kBlockChannels / x.group_size);
        const TokenBlock& tokens = s->slab[block - begin];
        for (int64_t n = 0; n < panels; n += 2) {
          const auto multiply = n + 1 < panels
                                    ? MultiplyBlock<Tiles, correction, is_unsigned, one_group, 2>
                                    : MultiplyBlock<Tiles, correction, is_unsigned, one_group, 1>;
          multiply(s->panels + n, tokens, groups, count, steps.channels, s->sums,
                   s->acc + panel + n);
        }
      }
    }
  }
  for (int64_t n = 0; n < tiles; ++n) {
    for (int64_t t = 0; t < count; ++t) {
      StoreToken(args, tile + n, first + t, _mm512_load_ps(s->acc[n][t]));
    }
  }
}

template <class Tiles, Correction correction, bool is_unsigned, bool one_group>
void Multiply(const MatmulArgs& args, const Steps& steps) {
  const ConfiguredTiles<Tiles> shapes(ConfigFor(steps));
  Scratch scratch;
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  for (int64_t tile = 0; tile < num_tiles; tile += kMostTiles) {
    const int64_t tiles = std::min(kMostTiles, num_tiles - tile);
    for (int64_t first = 0; first < args.tokens; first += kBatch) {
      const int64_t count = std::min(kBatch, args.tokens - first);
      MultiplyBatch<Tiles, correction, is_unsigned, one_group>(args, steps, tile, tiles, first,
                                                               count, &scratch);
    }
  }
}

template <class Tiles, Correction correction, bool is_unsigned>
void Multiply(const MatmulArgs& args, const Steps& steps) {
  if (steps.groups == 1) return Multiply<Tiles, correction, is_unsigned, true>(args, steps);
  Multiply<Tiles, correction, is_unsigned, false>(args, steps);
}

// Any quantized type, any number of tokens. REQUIRES: args as in ops.h with `xq`; AMX runs.
template <class Tiles>
void MatmulTiles(const MatmulArgs& args) {
  const WeightType& type = args.layout->type;
  const Steps steps = StepsOf(type, args.xq->group_size);
  if (SubtractsZerosLater(type)) {
    return Multiply<Tiles, Correction::kZeroPoint, true>(args, steps);
  }
  if (type.offset != WeightOffset::kMinimum) {
    return Multiply<Tiles, Correction::kNone, false>(args, steps);
  }
  if (steps.unsigned_weights) return Multiply<Tiles, Correction::kMinimum, true>(args, steps);
  Multiply<Tiles, Correction::kMinimum, false>(args, steps);
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_MATMUL_TILES_H_
