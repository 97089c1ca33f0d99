// Products of unsigned weights and signed activations by vpdpbusd: each load of 64 bytes is 16 rows
// of four channels (int8) or, by its nibbles, of eight (int4); the activations of four channels are
// broadcast to all rows. The instruction adds in 32 bits without saturation, so all sums are exact.
#include <immintrin.h>

#include <algorithm>
#include <utility>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tile_output_avx512.h"
#include "kernels/cpu/vnni_avx512.h"

namespace sluice {
namespace {

// Tokens that share each load of weights, and tiles that share each broadcast of activations: their
// sums, 12 registers of the 32, leave room for the rest, and hide the latency of the instruction.
constexpr int64_t kMaxTokens = 6;
constexpr int64_t kTiles = 2;
constexpr int64_t kMaxGroups = 8;  // of a block
// Few tokens wait for memory. Tiles far apart, each the next of its part of the range, are as many
// streams, which the processor itself fetches ahead; asking for lines besides slows it down.
constexpr int64_t kStreams = 4;
constexpr int64_t kTokensOfStreams = kMaxTokens * kTiles / kStreams;
// Bytes from the weights in use to those that are asked for where there is one stream: a page and a
// block, which makes the processor begin with the page.
constexpr int64_t kAhead = 4608;
constexpr int64_t kAheadOfPair = 4096;

enum class Kind { kInt4, kInt8 };

// Where lines that are asked for go.
enum class Fetch { kNothing, kFirstCache, kSecondCache };

template <Fetch fetch>
inline void Prefetch(const void* p, int64_t ahead) {
  const char* line = static_cast<const char*>(p) + ahead;
  if constexpr (fetch == Fetch::kFirstCache) _mm_prefetch(line, _MM_HINT_T0);
  if constexpr (fetch == Fetch::kSecondCache) _mm_prefetch(line, _MM_HINT_T1);
}

// A group's 16 zero points: -z in the lower 16 of 32 bits, 0 in the upper.
inline __m512i LoadZeros(const std::byte* offsets) {
  const __m512i zeros =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(offsets)));
  return _mm512_and_si512(_mm512_sub_epi32(_mm512_setzero_si512(), zeros),
                          _mm512_set1_epi32(0xffff));
}

// What all rows share of the offsets of a block's groups, for each token.
template <int tokens>
struct Shared {
  alignas(32) int32_t starts[tokens][kMaxGroups];  // kNone: -z b
  alignas(32) float products[tokens][kMaxGroups];  // kMinimum: S b
};

template <Kind kind, WeightOffset offset, int tokens>
inline void PrepareBlock(const float* scales, const int32_t* sums, int64_t stride, int64_t groups,
                         Shared<tokens>* shared) {
  const auto mask = static_cast<__mmask8>((1u << groups) - 1);
#pragma GCC unroll 6
  for (int t = 0; t < tokens; ++t) {
    const __m256i sum = _mm256_maskz_loadu_epi32(mask, sums + t * stride);
    if constexpr (offset == WeightOffset::kNone) {
      const __m256i zero = _mm256_setzero_si256();
      _mm256_store_si256(
          reinterpret_cast<__m256i*>(shared->starts[t]),
          _mm256_sub_epi32(zero, _mm256_slli_epi32(sum, kind == Kind::kInt4 ? 3 : 7)));
    } else if constexpr (offset == WeightOffset::kMinimum) {
      const __m256 scale = _mm256_maskz_loadu_ps(mask, scales + t * stride);
      _mm256_store_ps(shared->products[t], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
    }
  }
}

// Adds the products of one group to `sums`: `steps` loads of weights of each tile. The activations
// of the tokens lie `stride` bytes apart. Few sums get two chains each: one would wait for itself.
template <Kind kind, int tokens, int tiles, Fetch fetch>
inline void AddProducts(const uint8_t* const* weights, int64_t steps, const int8_t* x,
                        int64_t stride, int64_t ahead, __m512i (*sums)[tokens]) {
  constexpr bool kTwoChains = tokens * tiles <= (kind == Kind::kInt4 ? 4 : 8);
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i others[tiles][tokens];
  if constexpr (kTwoChains) {
    for (int n = 0; n < tiles; ++n) {
      for (int t = 0; t < tokens; ++t) others[n][t] = _mm512_setzero_si512();
    }
  }
  constexpr int64_t kStride = kind == Kind::kInt4 ? 1 : 2;
  for (int64_t step = 0; step < steps; step += kStride) {
    __m512i first[tiles];
    __m512i second[tiles];
#pragma GCC unroll 4
    for (int n = 0; n < tiles; ++n) {
      Prefetch<fetch>(weights[n] + 64 * step, ahead);
      if constexpr (kind == Kind::kInt4) {
        const __m512i both = Load(weights[n] + 64 * step);
        first[n] = _mm512_and_si512(both, nibble);
        second[n] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
      } else {
        Prefetch<fetch>(weights[n] + 64 * step + 64, ahead);
        first[n] = Load(weights[n] + 64 * step);
        second[n] = Load(weights[n] + 64 * step + 64);
      }
    }
    const int8_t* at = x + (kind == Kind::kInt4 ? 8 : 4) * step;
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) {
      const __m512i four = Broadcast4(at + t * stride);
#pragma GCC unroll 4
      for (int n = 0; n < tiles; ++n) sums[n][t] = AddDots(sums[n][t], first[n], four);
    }
#pragma GCC unroll 6
    for (int t = 0; t < tokens; ++t) {
      const __m512i four = Broadcast4(at + t * stride + 4);
#pragma GCC unroll 4
      for (int n = 0; n < tiles; ++n) {
        __m512i& sum = kTwoChains ? others[n][t] : sums[n][t];
        sum = AddDots(sum, second[n], four);
      }
    }
  }
  if constexpr (kTwoChains) {
    for (int n = 0; n < tiles; ++n) {
      for (int t = 0; t < tokens; ++t) sums[n][t] = _mm512_add_epi32(sums[n][t], others[n][t]);
    }
  }
}

// acc + a group's share, from the exact sum of (q - z) x, or of q x with minima
// (kernels/README.md).
template <WeightOffset offset>
inline __m512 AddGroup(__m512 scales, __m512 minimums, float scale, float product, __m512i products,
                       __m512 acc) {
  const __m512 factor = _mm512_mul_ps(scales, _mm512_set1_ps(scale));
  acc = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(products), acc);
  if constexpr (offset == WeightOffset::kMinimum) {
    acc = _mm512_fmadd_ps(minimums, _mm512_set1_ps(product), acc);
  }
  return acc;
}

struct TileRange {
  const std::byte* first_tile;
  int64_t first_token;
  int64_t stride;  // bytes from a tile to the next one of these
  int64_t ahead;   // bytes from a tile's weights to those that are asked for beside it
};

// Some tiles for some tokens: their sums stay in the first-level cache from group to group.
template <Kind kind, WeightOffset offset, int tokens, int tiles, Fetch fetch>
void MultiplyTiles(const MatmulArgs& args, const TileRange& range,
                   float (*acc)[kMaxTokens][kTileRows]) {
  const TileLayout& layout = *args.layout;
  const QuantizedActivations& x = *args.xq;
  const bool whole_rows = layout.type.group_size == 0;
  const int64_t group_size = whole_rows ? kBlockChannels : layout.type.group_size;
  constexpr int64_t kChannelsPerLoad = kind == Kind::kInt4 ? 8 : 4;
  constexpr int64_t kOffsetBytes = offset == WeightOffset::kMinimum ? 2 : 1;
  const int64_t full_groups = kBlockChannels / group_size;
  const uint64_t full_header =
      whole_rows ? 0 : layout.block_header_bytes(static_cast<uint32_t>(full_groups));
  __m512 total[tiles][tokens];
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) total[n][t] = _mm512_setzero_ps();
  }
  for (int64_t index = args.block_begin; index < args.block_end; ++index) {
    const uint64_t place =
        layout.tile_header_bytes + static_cast<uint64_t>(index) * layout.block_bytes;
    const int64_t channels = std::min<int64_t>(
        kBlockChannels, static_cast<int64_t>(layout.padded_cols) - index * kBlockChannels);
    const int64_t groups = (channels + group_size - 1) / group_size;
    const uint64_t header_bytes = groups == full_groups
                                      ? full_header
                                      : layout.block_header_bytes(static_cast<uint32_t>(groups));
    const std::byte* scales[tiles];
    const uint8_t* weights[tiles];
    for (int n = 0; n < tiles; ++n) {
      const std::byte* tile = range.first_tile + n * range.stride;
      scales[n] = whole_rows ? tile : tile + place;
      weights[n] = reinterpret_cast<const uint8_t*>(tile + place + header_bytes);
      for (uint64_t at = 0; at < header_bytes; at += 64) {
        Prefetch<fetch>(tile + place + at, range.ahead);
      }
    }
    const int8_t* values = x.values + range.first_token * x.padded_cols + index * kBlockChannels;
    const int64_t first_group = index * kBlockChannels / x.group_size;
    const float* block_scales = x.scales + range.first_token * x.groups + first_group;
    const int32_t* block_sums = x.sums + range.first_token * x.groups + first_group;
    Shared<tokens> shared;
    PrepareBlock<kind, offset, tokens>(block_scales, block_sums, x.groups, groups, &shared);
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t begin = group * group_size;
      const int64_t size = std::min(group_size, channels - begin);
      const float* token_scales = block_scales + group;
      __m512i sums[tiles][tokens];
      const uint8_t* group_weights[tiles];
#pragma GCC unroll 4
      for (int n = 0; n < tiles; ++n) {
        group_weights[n] = weights[n] + begin / kChannelsPerLoad * 64;
        __m512i zeros = _mm512_setzero_si512();
        if constexpr (offset == WeightOffset::kZeroPoint) {
          zeros = LoadZeros(scales[n] + groups * kTileRows * 2 + group * kTileRows * kOffsetBytes);
        }
#pragma GCC unroll 6
        for (int t = 0; t < tokens; ++t) {
          if constexpr (offset == WeightOffset::kMinimum) {
            sums[n][t] = _mm512_setzero_si512();
          } else if constexpr (offset == WeightOffset::kNone) {
            sums[n][t] = _mm512_set1_epi32(shared.starts[t][group]);
          } else {
            // z below 256 and |b| up to 128 x 127 fit 16 bits: one product of words gives -z b.
            const __m512i sum = _mm512_set1_epi32(block_sums[t * x.groups + group]);
            sums[n][t] = _mm512_madd_epi16(zeros, sum);
          }
        }
      }
      AddProducts<kind, tokens, tiles, fetch>(group_weights, size / kChannelsPerLoad,
                                              values + begin, x.padded_cols, range.ahead, sums);
#pragma GCC unroll 4
      for (int n = 0; n < tiles; ++n) {
        const __m512 group_scales = LoadHalves(scales[n] + group * kTileRows * 2);
        __m512 minimums = _mm512_setzero_ps();
        if constexpr (offset == WeightOffset::kMinimum) {
          minimums =
              LoadHalves(scales[n] + groups * kTileRows * 2 + group * kTileRows * kOffsetBytes);
        }
#pragma GCC unroll 6
        for (int t = 0; t < tokens; ++t) {
          total[n][t] = AddGroup<offset>(group_scales, minimums, token_scales[t * x.groups],
                                         shared.products[t][group], sums[n][t], total[n][t]);
        }
      }
    }
  }
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) _mm512_store_ps(acc[n][t], total[n][t]);
  }
}

using TileFunction = void (*)(const MatmulArgs&, const TileRange&,
                              float (*)[kMaxTokens][kTileRows]);

template <Kind kind, WeightOffset offset, int tiles, Fetch fetch, int... tokens>
TileFunction Choose(int64_t count, std::integer_sequence<int, tokens...>) {
  constexpr TileFunction kFunctions[] = {MultiplyTiles<kind, offset, tokens + 1, tiles, fetch>...};
  return kFunctions[count - 1];
}

template <Kind kind, int tiles, int tokens, Fetch fetch>
TileFunction Choose(WeightOffset offset, int64_t count) {
  constexpr auto kCounts = std::make_integer_sequence<int, tokens>();
  switch (offset) {
    case WeightOffset::kMinimum:
      return Choose<kind, WeightOffset::kMinimum, tiles, fetch>(count, kCounts);
    case WeightOffset::kZeroPoint:
      return Choose<kind, WeightOffset::kZeroPoint, tiles, fetch>(count, kCounts);
    default:
      return Choose<kind, WeightOffset::kNone, tiles, fetch>(count, kCounts);
  }
}

template <int tiles, int tokens, Fetch fetch>
TileFunction Choose(const WeightType& type, int64_t count) {
  return type.kind == WeightKind::kInt4
             ? Choose<Kind::kInt4, tiles, tokens, fetch>(type.offset, count)
             : Choose<Kind::kInt8, tiles, tokens, fetch>(type.offset, count);
}

// Of a pair of tiles. Rows of a batch of tokens lie far apart, and each is another miss when the
// sums are stored: these are under way while the sums are computed. Inlined by force, because GCC
// 12 drops calls of a function that only prefetches.
__attribute__((always_inline)) inline void PrefetchOutputs(const MatmulArgs& args, int64_t tile,
                                                           int64_t first, int64_t count) {
  const int64_t end = std::min(args.rows, (tile + kTiles) * kTileRows);
  for (int64_t t = first; t < first + count; ++t) {
    for (int64_t row = tile * kTileRows; row < end; row += kTileRows) {
      __builtin_prefetch(args.y + t * args.y_stride + row, 1);
    }
  }
}

// Tiles that are computed together, for tokens [first, first + count).
struct Work {
  int64_t tile;      // the first of them
  int64_t tiles;     // how many
  int64_t distance;  // from one to the next
  int64_t first, count;
  int64_t ahead;
};

void Multiply(const MatmulArgs& args, const Work& work, TileFunction function) {
  const auto tile_bytes = static_cast<int64_t>(args.layout->tile_bytes);
  alignas(64) float acc[kStreams][kMaxTokens][kTileRows];
  function(
      args,
      {args.tiles + work.tile * tile_bytes, work.first, work.distance * tile_bytes, work.ahead},
      acc);
  for (int64_t n = 0; n < work.tiles; ++n) {
    for (int64_t t = 0; t < work.count; ++t) {
      StoreToken(args, work.tile + n * work.distance, work.first + t, _mm512_load_ps(acc[n][t]));
    }
  }
}

// Few tokens, whose products take less time than the weights do to be read.
void MultiplyFew(const MatmulArgs& args, int64_t num_tiles) {
  const WeightType& type = args.layout->type;
  const int64_t distance = num_tiles / kStreams;
  const auto together = Choose<kStreams, kTokensOfStreams, Fetch::kNothing>(type, args.tokens);
  for (int64_t tile = 0; tile < distance; ++tile) {
    Multiply(args, {tile, kStreams, distance, 0, args.tokens, 0}, together);
  }
  const auto alone = Choose<1, kTokensOfStreams, Fetch::kFirstCache>(type, args.tokens);
  for (int64_t tile = distance * kStreams; tile < num_tiles; ++tile) {
    Multiply(args, {tile, 1, 0, 0, args.tokens, kAhead}, alone);
  }
}

// In as few rounds as registers allow, of nearly equal size: 7 tokens are 4 and 3.
void MultiplyMany(const MatmulArgs& args, int64_t num_tiles) {
  const WeightType& type = args.layout->type;
  const auto tile_bytes = static_cast<int64_t>(args.layout->tile_bytes);
  const int64_t rounds = (args.tokens + kMaxTokens - 1) / kMaxTokens;
  for (int64_t tile = 0; tile < num_tiles; tile += kTiles) {
    const int64_t tiles = std::min(kTiles, num_tiles - tile);
    int64_t first = 0;
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t count = (args.tokens - first + rounds - round - 1) / (rounds - round);
      if (rounds > 1) PrefetchOutputs(args, tile, first, count);
      const int64_t next = round + 1 == rounds ? tiles * tile_bytes : 0;
      Multiply(args, {tile, tiles, 1, first, count, rounds == 1 ? kAheadOfPair : next},
               tiles == 1 ? Choose<1, kMaxTokens, Fetch::kSecondCache>(type, count)
                          : Choose<kTiles, kMaxTokens, Fetch::kSecondCache>(type, count));
      first += count;
    }
  }
}

}  // namespace

void MatmulAvx512(const MatmulArgs& args, CUstream_st*) {
  const WeightType& type = args.layout->type;
  if (!type.quantized()) return MatmulFloatAvx512(args);
  if (type.kind >= WeightKind::kInt5) return MatmulKQuantAvx512(args);
  if (args.tokens == 0) return;
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  if (args.tokens <= kTokensOfStreams) {
    MultiplyFew(args, num_tiles);
  } else {
    MultiplyMany(args, num_tiles);
  }
}

}  // namespace sluice
