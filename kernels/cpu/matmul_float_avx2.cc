// Float weights: even and odd channels in two chains of FMAs for each row (kernels/README.md).
#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/tile_output_avx2.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 3;       // whose sums of 16 rows fit the registers
constexpr int64_t kBatch = 48;       // that share the weights of a tile while they are in cache
constexpr int64_t kDirect = 3;       // up to here 16-bit weights are widened where they are used
constexpr int64_t kPrefetch = 4096;  // bytes ahead

// Sums of one token: [even, odd channels][rows 0 to 7, 8 to 15].
struct Sums {
  __m256 chain[2][2];
};

inline __m256i Load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Channels 2 pair and 2 pair + 1 of rows 8 half to 8 half + 7.
template <WeightKind kind>
inline void LoadPair(const std::byte* values, int64_t pair, int64_t half, __m256* even,
                     __m256* odd) {
  if constexpr (kind == WeightKind::kF32) {
    const auto* p = reinterpret_cast<const float*>(values) + pair * 32 + half * 8;
    *even = _mm256_loadu_ps(p);
    *odd = _mm256_loadu_ps(p + 16);
  } else {
    const __m256i both = Load(values + pair * 64 + half * 32);
    if constexpr (kind == WeightKind::kBF16) {
      *even = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
      *odd = _mm256_castsi256_ps(
          _mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    } else {
      const __m256i gather = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                              0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
      const __m256i sorted =
          _mm256_permute4x64_epi64(_mm256_shuffle_epi8(both, gather), _MM_SHUFFLE(3, 1, 2, 0));
      *even = _mm256_cvtph_ps(_mm256_castsi256_si128(sorted));
      *odd = _mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1));
    }
  }
}

// Adds `channels` channels; of a last odd one only the even chain takes part.
template <WeightKind kind, int tokens>
void AddChannels(const std::byte* values, int64_t channels, const float* const* x, Sums* sums) {
  Sums local[tokens];
#pragma GCC unroll 4
  for (int t = 0; t < tokens; ++t) local[t] = sums[t];
  for (int64_t pair = 0; pair < channels / 2; ++pair) {
    __m256 weights[2][2];
    LoadPair<kind>(values, pair, 0, &weights[0][0], &weights[1][0]);
    LoadPair<kind>(values, pair, 1, &weights[0][1], &weights[1][1]);
#pragma GCC unroll 3
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int odd = 0; odd < 2; ++odd) {
        const __m256 value = _mm256_broadcast_ss(x[t] + 2 * pair + odd);
        __m256* chain = local[t].chain[odd];
        chain[0] = _mm256_fmadd_ps(weights[odd][0], value, chain[0]);
        chain[1] = _mm256_fmadd_ps(weights[odd][1], value, chain[1]);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < tokens; ++t) sums[t] = local[t];
}

// A channel without its odd neighbour. f32 tiles end with it, the others have a zero there.
void AddLastChannel(WeightKind kind, const std::byte* values, int64_t channel, int64_t tokens,
                    const float* const* x, Sums* sums) {
  for (int64_t half = 0; half < 2; ++half) {
    __m256 even, odd;
    if (kind == WeightKind::kF32) {
      even = _mm256_loadu_ps(reinterpret_cast<const float*>(values) + channel * 16 + half * 8);
    } else if (kind == WeightKind::kF16) {
      LoadPair<WeightKind::kF16>(values, channel / 2, half, &even, &odd);
    } else {
      LoadPair<WeightKind::kBF16>(values, channel / 2, half, &even, &odd);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      __m256* sum = &sums[t].chain[0][half];
      *sum = _mm256_fmadd_ps(even, _mm256_broadcast_ss(x[t] + channel), *sum);
    }
  }
}

template <WeightKind kind>
void AddChannelsOfTokens(int64_t tokens, const std::byte* values, int64_t channels,
                         const float* const* x, Sums* sums) {
  switch (tokens) {
    case 1:
      AddChannels<kind, 1>(values, channels, x, sums);
      break;
    case 2:
      AddChannels<kind, 2>(values, channels, x, sums);
      break;
    default:
      AddChannels<kind, 3>(values, channels, x, sums);
      break;
  }
  if (channels % 2 != 0) AddLastChannel(kind, values, channels - 1, tokens, x, sums);
}

template <WeightKind kind>
void Widen(const std::byte* values, int64_t channels, float (*panel)[kTileRows]) {
  for (int64_t pair = 0; pair < (channels + 1) / 2; ++pair) {
    for (int64_t half = 0; half < 2; ++half) {
      __m256 even, odd;
      LoadPair<kind>(values, pair, half, &even, &odd);
      _mm256_store_ps(&panel[2 * pair][8 * half], even);
      _mm256_store_ps(&panel[2 * pair + 1][8 * half], odd);
    }
  }
}

// One block of up to 128 channels for `count` tokens; x[t] points at its first channel.
template <WeightKind kind>
void MultiplyBlock(const std::byte* values, int64_t channels, int64_t count, const float* const* x,
                   Sums* sums) {
  alignas(32) float panel[kBlockChannels][kTileRows];
  const bool direct = kind == WeightKind::kF32 || count <= kDirect;
  if constexpr (kind != WeightKind::kF32) {
    if (!direct) Widen<kind>(values, channels, panel);
  }
  for (int64_t t = 0; t < count; t += kTokens) {
    const int64_t tokens = std::min(kTokens, count - t);
    if (direct) {
      AddChannelsOfTokens<kind>(tokens, values, channels, x + t, sums + t);
    } else {
      AddChannelsOfTokens<WeightKind::kF32>(tokens, reinterpret_cast<const std::byte*>(panel),
                                            channels, x + t, sums + t);
    }
  }
}

template <WeightKind kind>
void MultiplyTile(const MatmulArgs& args, int64_t tile, int64_t first, int64_t count) {
  constexpr int64_t kChannelBytes = kTileRows * (kind == WeightKind::kF32 ? 4 : 2);
  const std::byte* bytes = args.tiles + tile * static_cast<int64_t>(args.layout->tile_bytes);
  const auto cols = static_cast<int64_t>(args.layout->cols);
  Sums sums[kBatch];
  std::memset(static_cast<void*>(sums), 0, static_cast<size_t>(count) * sizeof(Sums));
  const float* x[kBatch];
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t begin = block * kBlockChannels;
    const int64_t channels = std::min<int64_t>(kBlockChannels, cols - begin);
    const std::byte* values = bytes + begin * kChannelBytes;
    for (int64_t at = 0; at < channels * kChannelBytes; at += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(values) + kPrefetch + at, _MM_HINT_T1);
    }
    for (int64_t t = 0; t < count; ++t) x[t] = args.x + (first + t) * args.x_stride + begin;
    MultiplyBlock<kind>(values, channels, count, x, sums);
  }
  for (int64_t t = 0; t < count; ++t) {
    StoreTile(args, tile, first + t, _mm256_add_ps(sums[t].chain[0][0], sums[t].chain[1][0]),
              _mm256_add_ps(sums[t].chain[0][1], sums[t].chain[1][1]));
  }
}

template <WeightKind kind>
void Multiply(const MatmulArgs& args) {
  for (int64_t first = 0; first < args.tokens; first += kBatch) {
    const int64_t count = std::min(kBatch, args.tokens - first);
    for (int64_t tile = 0; tile * kTileRows < args.rows; ++tile) {
      MultiplyTile<kind>(args, tile, first, count);
    }
  }
}

}  // namespace

void MatmulFloatAvx2(const MatmulArgs& args) {
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
