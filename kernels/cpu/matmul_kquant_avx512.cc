// Products with the types of GGUF that have 4 to 6 bits (int5, Q4_K, Q5_K, Q6_K) by vpdpbusd, as
// matmul_int_avx512.cc has them for int4. Few tokens unpack the integers where they use them, of
// four tiles; more in batches (batch_avx512.h).
#include <immintrin.h>

#include <algorithm>
#include <utility>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/batch_avx512.h"
#include "kernels/cpu/tile_output_avx512.h"
#include "kernels/cpu/vnni_avx512.h"

namespace sluice {
namespace {

constexpr int64_t kMaxTokens = 6;      // in registers together
constexpr int64_t kDirectTokens = 18;  // up to here integers are unpacked where they are used
constexpr int64_t kStreams = 4;        // tiles that those take together (matmul_int_avx512.cc)
constexpr int64_t kPrefetch = 4096;    // bytes ahead, where there is one tile

enum class Form { kQ5_0, kQ5_1, kQ4K, kQ5K, kQ6K };

// How a block lies in a tile of 16 rows.
template <Form form>
struct Traits {
  static constexpr bool kMinimum = form != Form::kQ5_0 && form != Form::kQ6K;
  static constexpr bool kSuperBlock = form != Form::kQ5_0 && form != Form::kQ5_1;
  static constexpr int kHighBits = form == Form::kQ4K ? 0 : form == Form::kQ6K ? 2 : 1;
  static constexpr int32_t kMiddle = kHighBits == 2 ? 32 : 16;  // without minima
  static constexpr int64_t kGroup = form == Form::kQ6K ? 16 : 32;
  static constexpr int64_t kPlaneBytes = kHighBits == 0 ? 0 : 64;
  static constexpr int64_t kGroupBytes = kPlaneBytes + 8 * kGroup;
  static constexpr int64_t kSteps = kGroup / 4;
};

inline __m128i Load16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

inline __m512 BytesToFloats(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// A block of one tile.
struct Block {
  const std::byte* header;
  int64_t first_group;  // of the block in its header
  int64_t groups;       // of the block
  const uint8_t* values;
};

template <Form form>
Block BlockAt(const TileLayout& layout, const std::byte* tile, int64_t index) {
  const auto number = static_cast<uint64_t>(index);
  if constexpr (Traits<form>::kSuperBlock) {
    const std::byte* header = tile + number / 2 * layout.block_bytes;
    constexpr int64_t kGroups = kBlockChannels / Traits<form>::kGroup;
    const uint64_t skipped = number % 2 * kGroups * Traits<form>::kGroupBytes;
    return {header, index % 2 * kGroups, kGroups,
            reinterpret_cast<const uint8_t*>(header + layout.block_header_bytes(0) + skipped)};
  }
  const std::byte* header = tile + number * layout.block_bytes;
  const uint32_t groups = layout.block_groups(number);
  return {header, 0, groups,
          reinterpret_cast<const uint8_t*>(header + layout.block_header_bytes(groups))};
}

struct Scales {
  __m512 scale;
  __m512 minimum;
};

// Of group `group` of a block.
template <Form form>
inline Scales ScalesOf(const Block& block, int64_t group) {
  const std::byte* header = block.header;
  if constexpr (form == Form::kQ5_0 || form == Form::kQ5_1) {
    const std::byte* scales = header + group * kTileRows * 2;
    __m512 minimum = _mm512_setzero_ps();
    if constexpr (form == Form::kQ5_1) minimum = LoadHalves(scales + block.groups * kTileRows * 2);
    return {LoadHalves(scales), minimum};
  }
  const int64_t place = block.first_group + group;
  const __m512 d = LoadHalves(header);
  if constexpr (form == Form::kQ6K) {
    const __m512i integers = _mm512_cvtepi8_epi32(Load16(header + (2 + place) * kTileRows));
    return {_mm512_mul_ps(d, _mm512_cvtepi32_ps(integers)), _mm512_setzero_ps()};
  }
  // Integers of six bits: the lower four share a byte, and the upper two of two groups another one.
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i top = _mm_set1_epi8(48);
  const __m128i low = Load16(header + (4 + place) * kTileRows);
  __m128i high = Load16(header + (12 + place / 2) * kTileRows);
  if (place % 2 == 0) high = _mm_slli_epi16(high, 4);  // scales in bits 4 and 5, minima in 6 and 7
  const __m128i scales = _mm_or_si128(_mm_and_si128(low, nibble), _mm_and_si128(high, top));
  const __m128i minimums = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), nibble),
                                        _mm_and_si128(_mm_srli_epi16(high, 2), top));
  const __m512 dmin = _mm512_xor_ps(LoadHalves(header + 2 * kTileRows), _mm512_set1_ps(-0.0f));
  return {_mm512_mul_ps(d, BytesToFloats(scales)), _mm512_mul_ps(dmin, BytesToFloats(minimums))};
}

// The integers of channels [4 step, 4 step + 4) of a group, with the plane of its upper bits.
template <Form form>
inline __m512i LoadIntegers(const uint8_t* group, __m512i plane, int64_t step) {
  constexpr int kHigh = Traits<form>::kHighBits;
  const __m512i both = Load(group + Traits<form>::kPlaneBytes + step / 2 * 64);
  const __m512i low =
      _mm512_and_si512(step % 2 == 0 ? both : _mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
  if constexpr (kHigh == 0) return low;
  const int64_t place = kHigh * step;  // of the upper bits in their byte; they go to 4
  const __m512i moved = place < 4 ? _mm512_slli_epi16(plane, static_cast<unsigned>(4 - place))
                                  : _mm512_srli_epi16(plane, static_cast<unsigned>(place - 4));
  // low | (moved & mask)
  return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi8(kHigh == 1 ? 16 : 48), 0xf8);
}

// Adds the groups of a block of each tile to the totals, one after another (kernels/README.md).
template <Form form, int tokens, int tiles>
inline void AddGroups(const Block* blocks, const Tokens& x, __m512 (*total)[tokens]) {
  using T = Traits<form>;
  for (int64_t group = 0; group < blocks[0].groups; ++group) {
    __m512i sums[tiles][tokens];
    __m512i planes[tiles];
    const uint8_t* values[tiles];
#pragma GCC unroll 4
    for (int n = 0; n < tiles; ++n) {
      values[n] = blocks[n].values + group * T::kGroupBytes;
      planes[n] = Load(values[n]);
#pragma GCC unroll 6
      for (int t = 0; t < tokens; ++t) {
        sums[n][t] =
            _mm512_set1_epi32(T::kMinimum ? 0 : -T::kMiddle * x.sums[t * x.groups + group]);
      }
    }
    const int8_t* at = x.values + group * T::kGroup;
#pragma GCC unroll 8
    for (int64_t step = 0; step < T::kSteps; ++step) {
      __m512i integers[tiles];
#pragma GCC unroll 4
      for (int n = 0; n < tiles; ++n) {
        integers[n] = LoadIntegers<form>(values[n], planes[n], step);
      }
#pragma GCC unroll 6
      for (int t = 0; t < tokens; ++t) {
        const __m512i four = Broadcast4(at + t * x.stride + 4 * step);
#pragma GCC unroll 4
        for (int n = 0; n < tiles; ++n) sums[n][t] = AddDots(sums[n][t], integers[n], four);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < tiles; ++n) {
      const Scales scales = ScalesOf<form>(blocks[n], group);
#pragma GCC unroll 6
      for (int t = 0; t < tokens; ++t) {
        const float scale = x.scales[t * x.groups + group];
        const __m512 factor = _mm512_mul_ps(scales.scale, _mm512_set1_ps(scale));
        __m512 acc = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(sums[n][t]), total[n][t]);
        if constexpr (T::kMinimum) {
          const float sum = scale * static_cast<float>(x.sums[t * x.groups + group]);
          acc = _mm512_fmadd_ps(scales.minimum, _mm512_set1_ps(sum), acc);
        }
        total[n][t] = acc;
      }
    }
  }
}

const std::byte* TileAt(const MatmulArgs& args, int64_t tile) {
  return args.tiles + tile * static_cast<int64_t>(args.layout->tile_bytes);
}

// Fetches a block of 128 channels that is kPrefetch bytes away.
template <Form form>
void PrefetchBlock(const TileLayout& layout, const Block& block) {
  const uint64_t bytes = Traits<form>::kSuperBlock ? layout.block_bytes / 2 : layout.block_bytes;
  const auto* ahead = reinterpret_cast<const char*>(block.values) + kPrefetch;
  for (uint64_t at = 0; at < bytes; at += 64) _mm_prefetch(ahead + at, _MM_HINT_T0);
}

// Tokens from `first` on: their sums stay in registers over all blocks. The tiles are `distance`
// apart.
template <Form form, int tokens, int tiles>
void MultiplyDirectly(const MatmulArgs& args, int64_t tile, int64_t distance, int64_t first) {
  __m512 total[tiles][tokens];
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) total[n][t] = _mm512_setzero_ps();
  }
  for (int64_t index = args.block_begin; index < args.block_end; ++index) {
    Block blocks[tiles];
    for (int n = 0; n < tiles; ++n) {
      blocks[n] = BlockAt<form>(*args.layout, TileAt(args, tile + n * distance), index);
      if constexpr (tiles == 1) PrefetchBlock<form>(*args.layout, blocks[n]);
    }
    const int64_t group = index * (kBlockChannels / Traits<form>::kGroup);
    AddGroups<form, tokens, tiles>(blocks, TokensAt(*args.xq, first, group), total);
  }
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) StoreToken(args, tile + n * distance, first + t, total[n][t]);
  }
}

using DirectFunction = void (*)(const MatmulArgs&, int64_t, int64_t, int64_t);

template <Form form, int tiles, int... tokens>
DirectFunction ChooseDirect(int64_t count, std::integer_sequence<int, tokens...>) {
  constexpr DirectFunction kFunctions[] = {MultiplyDirectly<form, tokens + 1, tiles>...};
  return kFunctions[count - 1];
}

constexpr auto kCounts = std::make_integer_sequence<int, kMaxTokens>();

// What a batch reads of a tile (batch_avx512.h).
template <Form form>
struct Source {
  using Block = ::sluice::Block;
  static constexpr int32_t kMiddle = Traits<form>::kMinimum ? 0 : Traits<form>::kMiddle;
  static constexpr int kGroups = kPanelChannels / Traits<form>::kGroup;

  Block BlockAt(const std::byte* tile, int64_t index) const {
    return ::sluice::BlockAt<form>(layout, tile, index);
  }

  static void Unpack(const Block& block, int64_t panel, __m512i* weights, GroupOfRows* rows) {
    using T = Traits<form>;
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const int64_t group = panel * kGroups + g;
      const uint8_t* values = block.values + group * T::kGroupBytes;
      const __m512i plane = Load(values);
#pragma GCC unroll 8
      for (int64_t step = 0; step < T::kSteps; ++step) {
        weights[g * T::kSteps + step] = LoadIntegers<form>(values, plane, step);
      }
      const Scales scales = ScalesOf<form>(block, group);
      rows[g].scale = scales.scale;
      rows[g].minimum = scales.minimum;
    }
  }

  const TileLayout& layout;
};

// Some tiles for all tokens, in as few rounds as registers allow, of nearly equal size. The second
// round finds the tiles in the second-level cache.
template <Form form, int tiles>
void MultiplyRounds(const MatmulArgs& args, int64_t tile, int64_t distance) {
  const int64_t rounds = (args.tokens + kMaxTokens - 1) / kMaxTokens;
  int64_t first = 0;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t tokens = (args.tokens - first + rounds - round - 1) / (rounds - round);
    ChooseDirect<form, tiles>(tokens, kCounts)(args, tile, distance, first);
    first += tokens;
  }
}

template <Form form>
void Multiply(const MatmulArgs& args) {
  const int64_t num_tiles = (args.rows + kTileRows - 1) / kTileRows;
  if (args.tokens <= kDirectTokens) {
    const int64_t distance = num_tiles / kStreams;
    for (int64_t tile = 0; tile < distance; ++tile) {
      MultiplyRounds<form, kStreams>(args, tile, distance);
    }
    for (int64_t tile = distance * kStreams; tile < num_tiles; ++tile) {
      MultiplyRounds<form, 1>(args, tile, 0);
    }
    return;
  }
  MultiplyBatches(args, Source<form>{*args.layout}, num_tiles);
}

}  // namespace

void MatmulKQuantAvx512(const MatmulArgs& args) {
  if (args.tokens == 0) return;
  const WeightType& type = args.layout->type;
  switch (type.kind) {
    case WeightKind::kQ4K:
      return Multiply<Form::kQ4K>(args);
    case WeightKind::kQ5K:
      return Multiply<Form::kQ5K>(args);
    case WeightKind::kQ6K:
      return Multiply<Form::kQ6K>(args);
    default:
      return type.offset == WeightOffset::kMinimum ? Multiply<Form::kQ5_1>(args)
                                                   : Multiply<Form::kQ5_0>(args);
  }
}

}  // namespace sluice
