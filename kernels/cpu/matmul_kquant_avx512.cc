// Products with the types of GGUF that have 4 to 6 bits (int5, Q4_K, Q5_K, Q6_K) by vpdpbusd, as
// matmul_int_avx512.cc has them for int4. Few tokens take the integers as they lie; for more, a
// few blocks are unpacked to bytes once.
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/avx512.h"

namespace sluice {
namespace {

constexpr int64_t kMaxTokens = 6;      // in registers together
constexpr int64_t kDirectTokens = 32;  // up to here integers are unpacked where they are used
constexpr int64_t kStreams = 4;        // tiles that those take together (matmul_int_avx512.cc)
constexpr int64_t kTiles = 2;          // that share each broadcast of activations with more tokens
constexpr int64_t kBatch = 64;         // tokens that share an unpacked block
constexpr int64_t kPanelBlocks = 4;    // that are unpacked together
constexpr int64_t kMaxGroups = 8;      // of a block: 128 channels in groups of 16
constexpr int64_t kPrefetch = 4096;    // bytes ahead, for the first tokens that see a tile

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

inline __m512i Load(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline __m128i Load16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

inline __m512i Broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// vpdpbusd. Not the intrinsic, because GCC 12 copies its sums from register to register, and to
// memory, in every round of a loop.
inline __m512i AddDots(__m512i sum, __m512i weights, __m512i activations) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(activations));
  return sum;
}

inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline __m512 BytesToFloats(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// A block of one tile as it lies, or as it was unpacked.
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

// Unpacked blocks, group after group.
struct Panel {
  alignas(64) uint8_t values[kPanelBlocks * kBlockChannels * kTileRows];  // 64 for four channels
  alignas(64) float scales[kPanelBlocks * kMaxGroups][kTileRows];
  alignas(64) float minimums[kPanelBlocks * kMaxGroups][kTileRows];
};

// As groups [first_group, first_group + block.groups) of the panel.
template <Form form>
void Unpack(const Block& block, int64_t first_group, Panel* panel) {
  uint8_t* to = panel->values + first_group * Traits<form>::kGroup * kTileRows;
  for (int64_t group = 0; group < block.groups; ++group) {
    const uint8_t* values = block.values + group * Traits<form>::kGroupBytes;
    const __m512i plane = Load(values);
#pragma GCC unroll 8
    for (int64_t step = 0; step < Traits<form>::kSteps; ++step, to += 64) {
      _mm512_store_si512(to, LoadIntegers<form>(values, plane, step));
    }
    const Scales scales = ScalesOf<form>(block, group);
    const int64_t place = first_group + group;
    _mm512_store_ps(panel->scales[place], scales.scale);
    if constexpr (Traits<form>::kMinimum) _mm512_store_ps(panel->minimums[place], scales.minimum);
  }
}

// Activations of some tokens for one block: `stride` bytes and `groups` numbers apart.
struct Tokens {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
  int64_t stride;
  int64_t groups;
};

Tokens TokensAt(const QuantizedActivations& x, int64_t token, int64_t block) {
  const int64_t group = block * kBlockChannels / x.group_size;
  return {x.values + token * x.padded_cols + block * kBlockChannels,
          x.scales + token * x.groups + group, x.sums + token * x.groups + group, x.padded_cols,
          x.groups};
}

// Adds some groups of each tile to the totals, of a block or of a panel, one after another
// (kernels/README.md).
template <Form form, bool unpacked, int tokens, int tiles>
inline void AddGroups(const Block* blocks, const Panel* panels, int64_t groups, const Tokens& x,
                      __m512 (*total)[tokens]) {
  using T = Traits<form>;
  for (int64_t group = 0; group < groups; ++group) {
    __m512i sums[tiles][tokens];
    __m512i planes[tiles];
    const uint8_t* values[tiles];
#pragma GCC unroll 4
    for (int n = 0; n < tiles; ++n) {
      values[n] = unpacked ? panels[n].values + group * T::kGroup * kTileRows
                           : blocks[n].values + group * T::kGroupBytes;
      planes[n] = unpacked ? _mm512_setzero_si512() : Load(values[n]);
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
        integers[n] =
            unpacked ? Load(values[n] + 64 * step) : LoadIntegers<form>(values[n], planes[n], step);
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
      Scales scales;
      if constexpr (unpacked) {
        scales = {_mm512_load_ps(panels[n].scales[group]),
                  T::kMinimum ? _mm512_load_ps(panels[n].minimums[group]) : _mm512_setzero_ps()};
      } else {
        scales = ScalesOf<form>(blocks[n], group);
      }
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

void StoreToken(const MatmulArgs& args, int64_t tile, int64_t token, __m512 sum) {
  const int64_t row = tile * kTileRows;
  const int64_t rows = std::min<int64_t>(kTileRows, args.rows - row);
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
  float* y = args.y + token * args.y_stride + row;
  if (args.bias != nullptr) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, args.bias + row));
  if (args.add_to_y) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
  _mm512_mask_storeu_ps(y, mask, sum);
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
    AddGroups<form, false, tokens, tiles>(blocks, nullptr, blocks[0].groups,
                                          TokensAt(*args.xq, first, index), total);
  }
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) StoreToken(args, tile + n * distance, first + t, total[n][t]);
  }
}

// Tokens of a batch: their sums wait in the first-level cache for the next panel.
template <Form form, int tokens, int tiles>
void AddUnpacked(const Panel* panels, int64_t groups, const Tokens& x,
                 float (*acc)[kTiles][kTileRows]) {
  __m512 total[tiles][tokens];
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) total[n][t] = _mm512_load_ps(acc[t][n]);
  }
  AddGroups<form, true, tokens, tiles>(nullptr, panels, groups, x, total);
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) _mm512_store_ps(acc[t][n], total[n][t]);
  }
}

using DirectFunction = void (*)(const MatmulArgs&, int64_t, int64_t, int64_t);
using UnpackedFunction = void (*)(const Panel*, int64_t, const Tokens&,
                                  float (*)[kTiles][kTileRows]);

template <Form form, int tiles, int... tokens>
DirectFunction ChooseDirect(int64_t count, std::integer_sequence<int, tokens...>) {
  constexpr DirectFunction kFunctions[] = {MultiplyDirectly<form, tokens + 1, tiles>...};
  return kFunctions[count - 1];
}

template <Form form, int tiles, int... tokens>
UnpackedFunction ChooseUnpacked(int64_t count, std::integer_sequence<int, tokens...>) {
  constexpr UnpackedFunction kFunctions[] = {AddUnpacked<form, tokens + 1, tiles>...};
  return kFunctions[count - 1];
}

constexpr auto kCounts = std::make_integer_sequence<int, kMaxTokens>();

// Blocks [index, end) of some tiles; returns the groups that each panel has now.
template <Form form>
int64_t UnpackPanels(const MatmulArgs& args, int64_t tile, int64_t tiles, int64_t index,
                     int64_t end, Panel* panels) {
  int64_t groups = 0;
  for (; index < end; ++index) {
    int64_t in_block = 0;
    for (int64_t n = 0; n < tiles; ++n) {
      const Block block = BlockAt<form>(*args.layout, TileAt(args, tile + n), index);
      PrefetchBlock<form>(*args.layout, block);
      Unpack<form>(block, groups, &panels[n]);
      in_block = block.groups;
    }
    groups += in_block;
  }
  return groups;
}

template <Form form>
void MultiplyBatch(const MatmulArgs& args, int64_t tile, int64_t tiles, int64_t first,
                   int64_t count) {
  alignas(64) float acc[kBatch][kTiles][kTileRows];
  std::memset(acc, 0, static_cast<size_t>(count) * sizeof(acc[0]));
  Panel panels[kTiles];
  // As few rounds as the registers allow, of nearly equal size: 7 tokens are 4 and 3.
  const int64_t rounds = (count + kMaxTokens - 1) / kMaxTokens;
  for (int64_t index = args.block_begin; index < args.block_end; index += kPanelBlocks) {
    const int64_t end = std::min(index + kPanelBlocks, args.block_end);
    const int64_t groups = UnpackPanels<form>(args, tile, tiles, index, end, panels);
    int64_t done = 0;
    for (int64_t round = 0; round < rounds; ++round) {
      const int64_t tokens = (count - done + rounds - round - 1) / (rounds - round);
      const UnpackedFunction add = tiles == 1 ? ChooseUnpacked<form, 1>(tokens, kCounts)
                                              : ChooseUnpacked<form, 2>(tokens, kCounts);
      add(panels, groups, TokensAt(*args.xq, first + done, index), acc + done);
      done += tokens;
    }
  }
  for (int64_t n = 0; n < tiles; ++n) {
    for (int64_t t = 0; t < count; ++t) {
      StoreToken(args, tile + n, first + t, _mm512_load_ps(acc[t][n]));
    }
  }
}

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
  for (int64_t tile = 0; tile < num_tiles; tile += kTiles) {
    const int64_t tiles = std::min(kTiles, num_tiles - tile);
    for (int64_t first = 0; first < args.tokens; first += kBatch) {
      MultiplyBatch<form>(args, tile, tiles, first, std::min(kBatch, args.tokens - first));
    }
  }
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
