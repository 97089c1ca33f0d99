// Products of unsigned weights and signed activations, two operands of 32 bytes at a time that meet
// the same four channels. For int4 these are rows 0 to 7 and 8 to 15 of the tile; for int8 the low
// and the high nibbles of eight rows, since vpmaddubsw adds two products in 16 bits, where only
// nibbles fit: 2 x 15 x 127, eight times, is 30,480. Nothing saturates, so all sums are exact.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/tile_streams_avx2.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 4;     // in registers together
constexpr int64_t kDirect = 4;     // up to here nibbles are unpacked where they are used
constexpr int64_t kMaxGroups = 8;  // of a block: 128 channels in groups of 16
constexpr int64_t kChunk = 32;     // channels whose products fit 16 bits

enum class Source { kInt4, kInt8, kPanel };

// One block of a tile: its integers, and its parameters as kernels want them.
struct Block {
  const uint8_t* values;
  int64_t channels;
  int64_t groups;
  int64_t group_size;
  float scales[kMaxGroups][kTileRows];
  float minimums[kMaxGroups][kTileRows];
  int32_t zeros[kMaxGroups][kTileRows];
};

// One token's share of a block.
struct Token {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
};

inline __m256i Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256i Broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// The two operands for channels [4 step, 4 step + 4) of the block.
template <Source source>
inline void LoadPair(const uint8_t* values, int64_t step, __m256i* first, __m256i* second) {
  const __m256i nibble = _mm256_set1_epi8(15);
  if constexpr (source == Source::kInt4) {
    const uint8_t* p = values + step / 2 * 64;
    __m256i low = Load(p);
    __m256i high = Load(p + 32);
    if (step % 2 != 0) {
      low = _mm256_srli_epi16(low, 4);
      high = _mm256_srli_epi16(high, 4);
    }
    *first = _mm256_and_si256(low, nibble);
    *second = _mm256_and_si256(high, nibble);
  } else if constexpr (source == Source::kInt8) {
    const __m256i bytes = Load(values + step * 64);
    *first = _mm256_and_si256(bytes, nibble);
    *second = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), nibble);
  } else {
    *first = Load(values + step * 64);
    *second = Load(values + step * 64 + 32);
  }
}

// Adds the products of `steps` times four channels (32 at most) in 16 bits. Unrolled by two steps,
// one load of int4, and no further: GCC 12 reassociates longer sums and runs out of registers.
template <Source source, int tokens>
inline void AddProducts(const uint8_t* values, int64_t first_step, int64_t steps,
                        const Token* token, __m256i (*sums)[2]) {
  for (int64_t step = first_step; step < first_step + steps; step += 2) {
#pragma GCC unroll 2
    for (int64_t i = 0; i < 2; ++i) {
      __m256i first, second;
      LoadPair<source>(values, step + i, &first, &second);
#pragma GCC unroll 4
      for (int t = 0; t < tokens; ++t) {
        const __m256i x = Broadcast4(token[t].values + 4 * (step + i));
        sums[t][0] = _mm256_add_epi16(sums[t][0], _mm256_maddubs_epi16(first, x));
        sums[t][1] = _mm256_add_epi16(sums[t][1], _mm256_maddubs_epi16(second, x));
      }
    }
  }
}

// acc + the share of one group of eight rows, from the exact sum of products (kernels/README.md).
inline __m256 AddGroup(WeightOffset offset, const Block& block, int64_t group, int64_t row,
                       const Token& token, __m256i products, __m256 acc) {
  const float scale = token.scales[group];
  const __m256 factor =
      _mm256_mul_ps(_mm256_loadu_ps(&block.scales[group][row]), _mm256_set1_ps(scale));
  if (offset == WeightOffset::kMinimum) {
    acc = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(products), acc);
    const float sum = scale * static_cast<float>(token.sums[group]);
    return _mm256_fmadd_ps(_mm256_loadu_ps(&block.minimums[group][row]), _mm256_set1_ps(sum), acc);
  }
  // z below 256 and |b| up to 128 x 127 fit 16 bits: one product of words, the upper of z being 0.
  const __m256i sum = _mm256_set1_epi32(token.sums[group]);
  const __m256i shift = _mm256_madd_epi16(Load(&block.zeros[group][row]), sum);
  return _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(_mm256_sub_epi32(products, shift)), acc);
}

// Adds a block's share to the sums of `tokens` tokens. `values` are 16 rows of int4, or the eight
// rows from `row` on of int8.
template <Source source, bool int4, int tokens>
void AddBlock(WeightOffset offset, const Block& block, const uint8_t* values, int64_t row,
              const Token* token, float (*acc)[kTileRows]) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i second_factor = _mm256_set1_epi16(int4 ? 1 : 16);
  for (int64_t group = 0; group < block.groups; ++group) {
    const int64_t begin = group * block.group_size;
    const int64_t end = std::min(block.channels, begin + block.group_size);
    __m256i totals[tokens][2];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) totals[t][0] = totals[t][1] = _mm256_setzero_si256();
    for (int64_t chunk = begin; chunk < end; chunk += kChunk) {
      __m256i sums[tokens][2];
#pragma GCC unroll 4
      for (int t = 0; t < tokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
      AddProducts<source, tokens>(values, chunk / 4, std::min(kChunk, end - chunk) / 4, token,
                                  sums);
#pragma GCC unroll 4
      for (int t = 0; t < tokens; ++t) {
        totals[t][0] = _mm256_add_epi32(totals[t][0], _mm256_madd_epi16(sums[t][0], ones));
        totals[t][1] = _mm256_add_epi32(totals[t][1], _mm256_madd_epi16(sums[t][1], second_factor));
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) {
      if constexpr (int4) {
        for (int64_t half = 0; half < 2; ++half) {
          float* at = &acc[t][8 * half];
          _mm256_storeu_ps(at, AddGroup(offset, block, group, 8 * half, token[t], totals[t][half],
                                        _mm256_loadu_ps(at)));
        }
      } else {
        const __m256i products = _mm256_add_epi32(totals[t][0], totals[t][1]);
        _mm256_storeu_ps(&acc[t][row], AddGroup(offset, block, group, row, token[t], products,
                                                _mm256_loadu_ps(&acc[t][row])));
      }
    }
  }
}

template <Source source, bool int4>
void AddBlockOfTokens(int64_t tokens, WeightOffset offset, const Block& block,
                      const uint8_t* values, int64_t row, const Token* token,
                      float (*acc)[kTileRows]) {
  switch (tokens) {
    case 1:
      return AddBlock<source, int4, 1>(offset, block, values, row, token, acc);
    case 2:
      return AddBlock<source, int4, 2>(offset, block, values, row, token, acc);
    case 3:
      return AddBlock<source, int4, 3>(offset, block, values, row, token, acc);
    default:
      return AddBlock<source, int4, 4>(offset, block, values, row, token, acc);
  }
}

inline __m256 LoadHalves(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Scales and offsets of a group, from where they lie in a tile.
void LoadParameters(const WeightType& type, const std::byte* scales, const std::byte* offsets,
                    int64_t group, Block* block) {
  const int32_t middle = type.kind == WeightKind::kInt4 ? 8 : 128;
  for (int64_t row = 0; row < kTileRows; row += 8) {
    _mm256_storeu_ps(&block->scales[group][row], LoadHalves(scales + 2 * row));
    __m256i zeros = _mm256_set1_epi32(middle);
    if (type.offset == WeightOffset::kMinimum) {
      _mm256_storeu_ps(&block->minimums[group][row], LoadHalves(offsets + 2 * row));
      continue;
    }
    if (type.offset == WeightOffset::kZeroPoint) {
      zeros =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(offsets + row)));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(&block->zeros[group][row]), zeros);
  }
}

void LoadBlock(const TileLayout& layout, const std::byte* tile, int64_t index, Block* block) {
  const WeightType& type = layout.type;
  const auto number = static_cast<uint64_t>(index);
  const std::byte* start = tile + layout.tile_header_bytes + number * layout.block_bytes;
  block->channels = layout.block_channels(number);
  if (type.group_size == 0) {
    block->groups = 1;
    block->group_size = kBlockChannels;
    block->values = reinterpret_cast<const uint8_t*>(start);
    LoadParameters(type, tile, tile + 2 * kTileRows, 0, block);
    return;
  }
  block->groups = layout.block_groups(number);
  block->group_size = type.group_size;
  const std::byte* offsets = start + block->groups * kTileRows * 2;
  const int64_t offset_bytes = type.offset == WeightOffset::kMinimum ? 2 : 1;
  for (int64_t group = 0; group < block->groups; ++group) {
    LoadParameters(type, start + group * kTileRows * 2, offsets + group * kTileRows * offset_bytes,
                   group, block);
  }
  block->values = reinterpret_cast<const uint8_t*>(
      start + layout.block_header_bytes(static_cast<uint32_t>(block->groups)));
}

// Unpacked once for many tokens: pairs of operands as AddProducts takes them, 64 bytes for each
// four channels, and for int8 first those of rows 0 to 7, then those of rows 8 to 15.
struct Panel {
  alignas(32) uint8_t values[2][kBlockChannels / 4 * 64];
};

void Store(uint8_t* p, __m256i value) { _mm256_store_si256(reinterpret_cast<__m256i*>(p), value); }

template <Source source>
void Unpack(const uint8_t* values, int64_t channels, uint8_t* panel) {
  for (int64_t step = 0; step < channels / 4; ++step) {
    __m256i first, second;
    LoadPair<source>(values, step, &first, &second);
    Store(panel + step * 64, first);
    Store(panel + step * 64 + 32, second);
  }
}

Token TokenAt(const QuantizedActivations& x, int64_t token, int64_t block) {
  const int64_t group = block * kBlockChannels / x.group_size;
  return {x.values + token * x.padded_cols + block * kBlockChannels,
          x.scales + token * x.groups + group, x.sums + token * x.groups + group};
}

// One block for tokens [first, first + count), up to kBatch of them.
template <bool int4>
void MultiplyBlock(const MatmulArgs& args, const Block& block, int64_t index, int64_t first,
                   int64_t count, float (*acc)[kTileRows]) {
  const WeightOffset offset = args.layout->type.offset;
  constexpr Source kPacked = int4 ? Source::kInt4 : Source::kInt8;
  constexpr int64_t kParts = int4 ? 1 : 2;  // of the tile's rows
  Panel panel;
  const bool direct = count <= kDirect;
  for (int64_t part = 0; part < kParts && !direct; ++part) {
    Unpack<kPacked>(block.values + 32 * part, block.channels, panel.values[part]);
  }
  for (int64_t t = 0; t < count; t += kTokens) {
    const int64_t tokens = std::min(kTokens, count - t);
    Token token[kTokens];
    for (int64_t i = 0; i < tokens; ++i) token[i] = TokenAt(*args.xq, first + t + i, index);
    for (int64_t part = 0; part < kParts; ++part) {
      if (direct) {
        AddBlockOfTokens<kPacked, int4>(tokens, offset, block, block.values + 32 * part, 8 * part,
                                        token, acc + t);
      } else {
        AddBlockOfTokens<Source::kPanel, int4>(tokens, offset, block, panel.values[part], 8 * part,
                                               token, acc + t);
      }
    }
  }
}

}  // namespace

void MatmulIntAvx2(const MatmulArgs& args) {
  if (args.layout->type.kind == WeightKind::kInt4) {
    MultiplyAllTiles<Block, LoadBlock, MultiplyBlock<true>>(args);
  } else {
    MultiplyAllTiles<Block, LoadBlock, MultiplyBlock<false>>(args);
  }
}

}  // namespace sluice
