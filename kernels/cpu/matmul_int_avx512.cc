// Products of unsigned weights and signed activations by vpdpbusd: each load of 64 bytes is 16 rows
// of four channels (int8) or, by its nibbles, of eight (int4); the activations of four channels are
// broadcast to all rows. The instruction adds in 32 bits without saturation, so all sums are exact.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"

namespace sluice {
namespace {

// Tokens that share each load of weights: their sums, the weights and what a group's end needs fill
// the 32 registers.
constexpr int64_t kMaxTokens = 12;
constexpr int64_t kPrefetch = 4096;  // bytes ahead, for the first tokens that see a tile

enum class Kind { kInt4, kInt8 };

inline __m512i Load(const uint8_t* p) { return _mm512_loadu_si512(p); }

inline __m512i Broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Scale and offset of a group's 16 rows.
struct Parameters {
  __m512 scales;
  __m512 minimums;
  __m512i zeros;  // 32 bits each, the upper 16 being 0
};

template <Kind kind>
inline Parameters LoadParameters(WeightOffset offset, const std::byte* scales,
                                 const std::byte* offsets) {
  Parameters p;
  p.scales = LoadHalves(scales);
  p.minimums = _mm512_setzero_ps();
  p.zeros = _mm512_set1_epi32(kind == Kind::kInt4 ? 8 : 128);
  if (offset == WeightOffset::kMinimum) {
    p.minimums = LoadHalves(offsets);
  } else if (offset == WeightOffset::kZeroPoint) {
    p.zeros = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(offsets)));
  }
  return p;
}

// Sums of products of one group, `steps` loads of weights, for `tokens` tokens whose activations
// lie `stride` bytes apart. Few tokens get two chains each: one alone would wait for itself.
template <Kind kind, int tokens>
inline void GroupProducts(const uint8_t* weights, int64_t steps, const int8_t* x, int64_t stride,
                          __m512i* sums) {
  constexpr int kChains = tokens <= 4 ? 2 : 1;
  const __m512i nibble = _mm512_set1_epi8(15);
  __m512i chain[tokens][kChains];
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < kChains; ++c) chain[t][c] = _mm512_setzero_si512();
  }
  if constexpr (kind == Kind::kInt4) {
    for (int64_t step = 0; step < steps; ++step) {
      const __m512i both = Load(weights + 64 * step);
      const __m512i low = _mm512_and_si512(both, nibble);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
      const int8_t* at = x + 8 * step;
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        chain[t][0] = _mm512_dpbusd_epi32(chain[t][0], low, Broadcast4(at + t * stride));
      }
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        chain[t][kChains - 1] =
            _mm512_dpbusd_epi32(chain[t][kChains - 1], high, Broadcast4(at + t * stride + 4));
      }
    }
  } else {
    for (int64_t step = 0; step < steps; step += 2) {
      const __m512i first = Load(weights + 64 * step);
      const __m512i second = Load(weights + 64 * step + 64);
      const int8_t* at = x + 4 * step;
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        chain[t][0] = _mm512_dpbusd_epi32(chain[t][0], first, Broadcast4(at + t * stride));
      }
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        chain[t][kChains - 1] =
            _mm512_dpbusd_epi32(chain[t][kChains - 1], second, Broadcast4(at + t * stride + 4));
      }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
    sums[t] = kChains == 1 ? chain[t][0] : _mm512_add_epi32(chain[t][0], chain[t][kChains - 1]);
  }
}

// acc + a group's share, from the exact sum of products (kernels/README.md).
template <WeightOffset offset>
inline __m512 AddGroup(const Parameters& p, float scale, int32_t sum, __m512i products,
                       __m512 acc) {
  const __m512 factor = _mm512_mul_ps(p.scales, _mm512_set1_ps(scale));
  if constexpr (offset == WeightOffset::kMinimum) {
    acc = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(products), acc);
    return _mm512_fmadd_ps(p.minimums, _mm512_set1_ps(scale * static_cast<float>(sum)), acc);
  } else {
    // z below 256 and |b| up to 128 x 127 fit 16 bits: one product of words, the upper of z being
    // 0.
    const __m512i shift = _mm512_madd_epi16(p.zeros, _mm512_set1_epi32(sum));
    return _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(_mm512_sub_epi32(products, shift)), acc);
  }
}

struct TileRange {
  const std::byte* tile;
  int64_t first_token;
  bool prefetch;
};

// One tile for `tokens` tokens: their sums stay in the first-level cache from group to group.
template <Kind kind, WeightOffset offset, int tokens>
void MultiplyTile(const MatmulArgs& args, const TileRange& range, float (*acc)[kTileRows]) {
  const TileLayout& layout = *args.layout;
  const QuantizedActivations& x = *args.xq;
  const bool whole_rows = layout.type.group_size == 0;
  const int64_t group_size = whole_rows ? kBlockChannels : layout.type.group_size;
  constexpr int64_t kChannelsPerLoad = kind == Kind::kInt4 ? 8 : 4;
  constexpr int64_t kOffsetBytes = offset == WeightOffset::kMinimum ? 2 : 1;
  for (int64_t index = args.block_begin; index < args.block_end; ++index) {
    const auto number = static_cast<uint64_t>(index);
    const std::byte* block = range.tile + layout.tile_header_bytes + number * layout.block_bytes;
    const int64_t channels = std::min<int64_t>(
        kBlockChannels, static_cast<int64_t>(layout.padded_cols) - index * kBlockChannels);
    const int64_t groups = (channels + group_size - 1) / group_size;
    const std::byte* scales = whole_rows ? range.tile : block;
    const std::byte* offsets = scales + groups * kTileRows * 2;
    const auto* weights = reinterpret_cast<const uint8_t*>(block);
    if (!whole_rows) weights += layout.block_header_bytes(static_cast<uint32_t>(groups));
    if (range.prefetch) {
      const auto* ahead = reinterpret_cast<const char*>(block) + kPrefetch;
      for (uint64_t at = 0; at < layout.block_bytes; at += 64)
        _mm_prefetch(ahead + at, _MM_HINT_T0);
    }
    const int8_t* values = x.values + range.first_token * x.padded_cols + index * kBlockChannels;
    const int64_t first_group = index * kBlockChannels / x.group_size;
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t begin = group * group_size;
      const int64_t size = std::min(group_size, channels - begin);
      const Parameters p = LoadParameters<kind>(offset, scales + group * kTileRows * 2,
                                                offsets + group * kTileRows * kOffsetBytes);
      __m512i sums[tokens];
      GroupProducts<kind, tokens>(weights + begin / kChannelsPerLoad * 64, size / kChannelsPerLoad,
                                  values + begin, x.padded_cols, sums);
      const float* activation_scales =
          x.scales + range.first_token * x.groups + first_group + group;
      const int32_t* activation_sums = x.sums + range.first_token * x.groups + first_group + group;
#pragma GCC unroll 12
      for (int t = 0; t < tokens; ++t) {
        _mm512_store_ps(acc[t], AddGroup<offset>(p, activation_scales[t * x.groups],
                                                 activation_sums[t * x.groups], sums[t],
                                                 _mm512_load_ps(acc[t])));
      }
    }
  }
}

void StoreToken(const MatmulArgs& args, int64_t tile, int64_t token, __m512 sum) {
  const int64_t row = tile * kTileRows;
  const int64_t rows = std::min<int64_t>(kTileRows, args.rows - row);
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
  float* y = args.y + token * args.y_stride + row;
  if (args.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, args.bias + row));
  if (args.add_to_y) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
  _mm512_mask_storeu_ps(y, mask, sum);
}

using TileFunction = void (*)(const MatmulArgs&, const TileRange&, float (*)[kTileRows]);

template <Kind kind, WeightOffset offset, int... tokens>
TileFunction Choose(int64_t count, std::integer_sequence<int, tokens...>) {
  constexpr TileFunction kFunctions[] = {MultiplyTile<kind, offset, tokens + 1>...};
  return kFunctions[count - 1];
}

template <Kind kind>
TileFunction Choose(WeightOffset offset, int64_t count) {
  constexpr auto kCounts = std::make_integer_sequence<int, kMaxTokens>();
  switch (offset) {
    case WeightOffset::kMinimum:
      return Choose<kind, WeightOffset::kMinimum>(count, kCounts);
    case WeightOffset::kZeroPoint:
      return Choose<kind, WeightOffset::kZeroPoint>(count, kCounts);
    default:
      return Choose<kind, WeightOffset::kNone>(count, kCounts);
  }
}

void MatmulInt(const MatmulArgs& args) {
  const WeightType& type = args.layout->type;
  const bool int4 = type.kind == WeightKind::kInt4;
  // As few rounds as the registers allow, of nearly equal size: 13 tokens are 7 and 6.
  const int64_t rounds = (args.tokens + kMaxTokens - 1) / kMaxTokens;
  for (int64_t tile = 0; tile * kTileRows < args.rows; ++tile) {
    const std::byte* bytes = args.tiles + tile * static_cast<int64_t>(args.layout->tile_bytes);
    int64_t first = 0;
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t count = (args.tokens - first + rounds - round - 1) / (rounds - round);
      alignas(64) float acc[kMaxTokens][kTileRows] = {};
      const TileFunction multiply =
          int4 ? Choose<Kind::kInt4>(type.offset, count) : Choose<Kind::kInt8>(type.offset, count);
      multiply(args, {bytes, first, round == 0}, acc);
      for (int64_t t = 0; t < count; ++t) StoreToken(args, tile, first + t, _mm512_load_ps(acc[t]));
      first += count;
    }
  }
}

}  // namespace

void MatmulAvx512(const MatmulArgs& args, CUstream_st*) {
  if (args.layout->type.quantized()) {
    MatmulInt(args);
  } else {
    MatmulFloatAvx2(args);
  }
}

}  // namespace sluice
