// Float weights: even and odd channels in two chains of FMAs for each row (kernels/README.md).
#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tile_output_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 6;  // whose sums of two tiles fit the registers
constexpr int64_t kTiles = 2;   // that share each broadcast of an activation
constexpr int64_t kBatch = 48;  // tokens that share the weights of a block while they are in cache
constexpr int64_t kAhead = 4096;  // bytes, of weights that are asked for beside those in use

using Panel = float[kBlockChannels][kTileRows];

// Sums of one token and tile: of its even and its odd channels.
struct Sums {
  __m512 even, odd;
};

inline void Prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p) + kAhead, _MM_HINT_T1);
}

inline __m512 WidenHalves(__m512i low_halves) {
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(low_halves));
}

// Channels 2 pair and 2 pair + 1 of 16 rows.
template <WeightKind kind>
inline void LoadPair(const std::byte* values, int64_t pair, __m512* even, __m512* odd) {
  if constexpr (kind == WeightKind::kF32) {
    const auto* p = reinterpret_cast<const float*>(values) + pair * 32;
    *even = _mm512_loadu_ps(p);
    *odd = _mm512_loadu_ps(p + 16);
  } else {
    Prefetch(values + pair * 64);
    const __m512i both = _mm512_loadu_si512(values + pair * 64);
    if constexpr (kind == WeightKind::kBF16) {
      *even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
      *odd = _mm512_castsi512_ps(
          _mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    } else {
      *even = WidenHalves(both);
      *odd = WidenHalves(_mm512_srli_epi32(both, 16));
    }
  }
}

// Adds `channels` channels of each tile for some tokens; of a last odd one only the even chain
// takes part. sums[n] are those of tile n, one for each token.
template <WeightKind kind, int tokens, int tiles>
void AddChannels(const std::byte* const* values, int64_t channels, const float* x, int64_t x_stride,
                 Sums* const* sums) {
  Sums local[tiles][tokens];
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) local[n][t] = sums[n][t];
  }
  for (int64_t pair = 0; pair < channels / 2; ++pair) {
    __m512 even[tiles];
    __m512 odd[tiles];
#pragma GCC unroll 2
    for (int n = 0; n < tiles; ++n) LoadPair<kind>(values[n], pair, &even[n], &odd[n]);
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) {
      const float* two = x + t * x_stride + 2 * pair;
      const __m512 first = _mm512_set1_ps(two[0]);
      const __m512 second = _mm512_set1_ps(two[1]);
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) {
        local[n][t].even = _mm512_fmadd_ps(even[n], first, local[n][t].even);
        local[n][t].odd = _mm512_fmadd_ps(odd[n], second, local[n][t].odd);
      }
    }
  }
  if (channels % 2 != 0) {
    for (int n = 0; n < tiles; ++n) {
      __m512 even, unused;
      if constexpr (kind == WeightKind::kF32) {
        // The tile may end with this channel.
        even = _mm512_loadu_ps(reinterpret_cast<const float*>(values[n]) + (channels - 1) * 16);
      } else {
        LoadPair<kind>(values[n], channels / 2, &even, &unused);
      }
      for (int t = 0; t < tokens; ++t) {
        const __m512 last = _mm512_set1_ps(x[t * x_stride + channels - 1]);
        local[n][t].even = _mm512_fmadd_ps(even, last, local[n][t].even);
      }
    }
  }
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) sums[n][t] = local[n][t];
  }
}

template <WeightKind kind, int tiles>
void AddChannelsOfTokens(int64_t tokens, const std::byte* const* values, int64_t channels,
                         const float* x, int64_t x_stride, Sums* const* sums) {
  using Function = decltype(&AddChannels<kind, 1, tiles>);
  static constexpr Function kFunctions[kTokens] = {
      AddChannels<kind, 1, tiles>, AddChannels<kind, 2, tiles>, AddChannels<kind, 3, tiles>,
      AddChannels<kind, 4, tiles>, AddChannels<kind, 5, tiles>, AddChannels<kind, 6, tiles>};
  kFunctions[tokens - 1](values, channels, x, x_stride, sums);
}

template <WeightKind kind>
void Widen(const std::byte* values, int64_t channels, Panel panel) {
  for (int64_t pair = 0; pair < (channels + 1) / 2; ++pair) {
    __m512 even, odd;
    LoadPair<kind>(values, pair, &even, &odd);
    _mm512_store_ps(panel[2 * pair], even);
    _mm512_store_ps(panel[2 * pair + 1], odd);
  }
}

// Some tiles for `count` tokens from `first` on.
template <WeightKind kind, int tiles>
void MultiplyTiles(const MatmulArgs& args, int64_t tile, int64_t first, int64_t count) {
  constexpr int64_t kChannelBytes = kTileRows * (kind == WeightKind::kF32 ? 4 : 2);
  alignas(64) Panel panels[kind == WeightKind::kF32 ? 1 : tiles];
  const auto cols = static_cast<int64_t>(args.layout->cols);
  Sums sums[tiles][kBatch];
  for (int n = 0; n < tiles; ++n) {
    std::fill_n(sums[n], count, Sums{_mm512_setzero_ps(), _mm512_setzero_ps()});
  }
  const bool direct = kind == WeightKind::kF32 || count <= kTokens;
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t begin = block * kBlockChannels;
    const int64_t channels = std::min<int64_t>(kBlockChannels, cols - begin);
    const std::byte* values[tiles];
    for (int n = 0; n < tiles; ++n) {
      values[n] = args.tiles + (tile + n) * static_cast<int64_t>(args.layout->tile_bytes) +
                  begin * kChannelBytes;
      if constexpr (kind != WeightKind::kF32) {
        if (!direct) {
          Widen<kind>(values[n], channels, panels[n]);
          values[n] = reinterpret_cast<const std::byte*>(panels[n]);
        }
      }
    }
    const int64_t rounds = (count + kTokens - 1) / kTokens;
    int64_t done = 0;
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t tokens = (count - done + rounds - round - 1) / (rounds - round);
      const float* x = args.x + (first + done) * args.x_stride + begin;
      Sums* token_sums[tiles];
      for (int n = 0; n < tiles; ++n) token_sums[n] = sums[n] + done;
      if (direct) {
        AddChannelsOfTokens<kind, tiles>(tokens, values, channels, x, args.x_stride, token_sums);
      } else {
        AddChannelsOfTokens<WeightKind::kF32, tiles>(tokens, values, channels, x, args.x_stride,
                                                     token_sums);
      }
      done += tokens;
    }
  }
  for (int n = 0; n < tiles; ++n) {
    for (int64_t t = 0; t < count; ++t) {
      StoreToken(args, tile + n, first + t, _mm512_add_ps(sums[n][t].even, sums[n][t].odd));
    }
  }
}

template <WeightKind kind>
void Multiply(const MatmulArgs& args) {
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  for (int64_t first = 0; first < args.tokens; first += kBatch) {
    const int64_t count = std::min(kBatch, args.tokens - first);
    for (int64_t tile = 0; tile < num_tiles; tile += kTiles) {
      if (num_tiles - tile >= kTiles) {
        MultiplyTiles<kind, kTiles>(args, tile, first, count);
      } else {
        MultiplyTiles<kind, 1>(args, tile, first, count);
      }
    }
  }
}

}  // namespace

void MatmulFloatAvx512(const MatmulArgs& args) {
  switch (args.layout->type.kind) {
    case WeightKind::kF32:
      return Multiply<WeightKind::kF32>(args);
    case WeightKind::kF16:
      return Multiply<WeightKind::kF16>(args);
    default:
      return Multiply<WeightKind::kBF16>(args);
  }
}

}  // namespace sluice
