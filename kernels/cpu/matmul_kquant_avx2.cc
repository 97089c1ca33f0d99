// Products with the types of GGUF that have 4 to 6 bits (int5, Q4_K, Q5_K, Q6_K): as
// matmul_int_avx2.cc has them for int4, rows 0 to 7 and 8 to 15 of the tile being the two operands.
// vpmaddubsw adds two products in 16 bits; its results are added there while they fit: 2 x 15 x 127
// eight times is 30,480, 2 x 31 x 127 four times 31,496, 2 x 63 x 127 twice 32,004. Nothing
// saturates, so all sums are exact.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/tile_streams_avx2.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 4;     // in registers together
constexpr int64_t kDirect = 2;     // up to here integers are unpacked where they are used
constexpr int64_t kMaxGroups = 8;  // of a block: 128 channels in groups of 16

// How the integers of a group of channels lie, for `high` bits above the lower four.
template <int high>
struct Integers {
  static constexpr int64_t kGroup = high == 2 ? 16 : 32;  // channels; also those of a plane
  static constexpr int64_t kPlaneBytes = high == 0 ? 0 : 64;
  static constexpr int64_t kGroupBytes = kPlaneBytes + 8 * kGroup;
  static constexpr int64_t kSteps = kGroup / 4;
  static constexpr int64_t kStepsIn16Bits = high == 0 ? 8 : high == 1 ? 4 : 2;
};

// One block of a tile: its integers, and the parameters of its groups.
struct Block {
  const uint8_t* values;
  int64_t groups;
  int32_t middle;  // without minima
  float scales[kMaxGroups][kTileRows];
  float minimums[kMaxGroups][kTileRows];
};

// One token's share of a block.
struct Token {
  const int8_t* values;
  const float* scales;
  const int32_t* sums;
};

inline __m256i Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i LoadHalf(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

inline __m256i Broadcast4(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// The upper bits of step `step`, moved above the lower four.
template <int high>
inline __m256i HighBits(__m256i plane, int64_t step) {
  if constexpr (high == 1) {
    const __m256i moved = step < 4 ? _mm256_slli_epi16(plane, static_cast<int>(4 - step))
                                   : _mm256_srli_epi16(plane, static_cast<int>(step - 4));
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
  } else {
    const __m256i moved = step < 2 ? _mm256_slli_epi16(plane, static_cast<int>(4 - 2 * step))
                                   : _mm256_srli_epi16(plane, static_cast<int>(2 * step - 4));
    return _mm256_and_si256(moved, _mm256_set1_epi8(48));
  }
}

// The integers of channels [4 step, 4 step + 4) of a group, for the eight rows from `half` x 8 on.
template <int high>
inline __m256i LoadIntegers(const uint8_t* group, int64_t step, int64_t half) {
  const uint8_t* p = group + Integers<high>::kPlaneBytes + step / 2 * 64 + half * 32;
  const __m256i both = Load(p);
  const __m256i low =
      _mm256_and_si256(step % 2 == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
  if constexpr (high == 0) return low;
  return _mm256_or_si256(low, HighBits<high>(Load(group + half * 32), step));
}

// Sums of the products of one group, exact: rows 0 to 7 and 8 to 15 of each token. `panel`: the
// integers are bytes, 64 for each four channels.
template <int high, bool panel, int tokens>
inline void SumProducts(const uint8_t* group, int64_t first_channel, const Token* token,
                        __m256i (*totals)[2]) {
  constexpr int64_t kRun = Integers<high>::kStepsIn16Bits;
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int t = 0; t < tokens; ++t) totals[t][0] = totals[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 2
  for (int64_t run = 0; run < Integers<high>::kSteps; run += kRun) {
    __m256i sums[tokens][2];
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int64_t step = run; step < run + kRun; ++step) {
      const __m256i first = panel ? Load(group + step * 64) : LoadIntegers<high>(group, step, 0);
      const __m256i second =
          panel ? Load(group + step * 64 + 32) : LoadIntegers<high>(group, step, 1);
#pragma GCC unroll 4
      for (int t = 0; t < tokens; ++t) {
        const __m256i x = Broadcast4(token[t].values + first_channel + 4 * step);
        sums[t][0] = _mm256_add_epi16(sums[t][0], _mm256_maddubs_epi16(first, x));
        sums[t][1] = _mm256_add_epi16(sums[t][1], _mm256_maddubs_epi16(second, x));
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) {
      totals[t][0] = _mm256_add_epi32(totals[t][0], _mm256_madd_epi16(sums[t][0], ones));
      totals[t][1] = _mm256_add_epi32(totals[t][1], _mm256_madd_epi16(sums[t][1], ones));
    }
  }
}

// acc + the share of one group of eight rows, from the exact sum of products (kernels/README.md).
template <bool minimum>
inline __m256 AddGroup(const Block& block, int64_t group, int64_t row, const Token& token,
                       __m256i products, __m256 acc) {
  const float scale = token.scales[group];
  const __m256 factor =
      _mm256_mul_ps(_mm256_loadu_ps(&block.scales[group][row]), _mm256_set1_ps(scale));
  if constexpr (minimum) {
    acc = _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(products), acc);
    const float sum = scale * static_cast<float>(token.sums[group]);
    return _mm256_fmadd_ps(_mm256_loadu_ps(&block.minimums[group][row]), _mm256_set1_ps(sum), acc);
  }
  const __m256i shift = _mm256_set1_epi32(block.middle * token.sums[group]);
  return _mm256_fmadd_ps(factor, _mm256_cvtepi32_ps(_mm256_sub_epi32(products, shift)), acc);
}

// Adds a block's share to the sums of `tokens` tokens.
template <int high, bool minimum, bool panel, int tokens>
void AddBlock(const Block& block, const uint8_t* values, const Token* token,
              float (*acc)[kTileRows]) {
  constexpr int64_t kBytes = panel ? Integers<high>::kGroup * 16 : Integers<high>::kGroupBytes;
  for (int64_t group = 0; group < block.groups; ++group) {
    __m256i totals[tokens][2];
    SumProducts<high, panel, tokens>(values + group * kBytes, group * Integers<high>::kGroup, token,
                                     totals);
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        float* at = &acc[t][8 * half];
        _mm256_storeu_ps(at, AddGroup<minimum>(block, group, 8 * half, token[t], totals[t][half],
                                               _mm256_loadu_ps(at)));
      }
    }
  }
}

template <int high, bool minimum, bool panel>
void AddBlockOfTokens(int64_t tokens, const Block& block, const uint8_t* values, const Token* token,
                      float (*acc)[kTileRows]) {
  switch (tokens) {
    case 1:
      return AddBlock<high, minimum, panel, 1>(block, values, token, acc);
    case 2:
      return AddBlock<high, minimum, panel, 2>(block, values, token, acc);
    case 3:
      return AddBlock<high, minimum, panel, 3>(block, values, token, acc);
    default:
      return AddBlock<high, minimum, panel, 4>(block, values, token, acc);
  }
}

inline __m256 LoadHalves(const std::byte* p) { return _mm256_cvtph_ps(LoadHalf(p)); }

inline __m256 BytesToFloats(__m128i bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

// Groups `first` to `first` + 4 of a super-block of Q4_K or Q5_K: integers of six bits, whose lower
// four share a byte, and the upper two of two groups another one.
void LoadSixBits(const std::byte* header, int64_t first, Block* block) {
  const __m128i nibble = _mm_set1_epi8(15);
  const __m128i top = _mm_set1_epi8(48);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t group = first + i;
    const __m128i low = LoadHalf(header + (4 + group) * kTileRows);
    __m128i high = LoadHalf(header + (12 + group / 2) * kTileRows);
    high = group % 2 == 0 ? _mm_slli_epi16(high, 4) : high;  // scales in bits 4, 5, minima in 6, 7
    __m128i scales = _mm_or_si128(_mm_and_si128(low, nibble), _mm_and_si128(high, top));
    __m128i minimums = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), nibble),
                                    _mm_and_si128(_mm_srli_epi16(high, 2), top));
    for (int64_t row = 0; row < kTileRows; row += 8) {
      const __m256 d = LoadHalves(header + 2 * row);
      const __m256 dmin = _mm256_xor_ps(LoadHalves(header + 2 * (kTileRows + row)), sign);
      _mm256_storeu_ps(&block->scales[i][row], _mm256_mul_ps(d, BytesToFloats(scales)));
      _mm256_storeu_ps(&block->minimums[i][row], _mm256_mul_ps(dmin, BytesToFloats(minimums)));
      scales = _mm_unpackhi_epi64(scales, scales);
      minimums = _mm_unpackhi_epi64(minimums, minimums);
    }
  }
}

// Groups `first` to `first` + 8 of a super-block of Q6_K.
void LoadEightBits(const std::byte* header, int64_t first, Block* block) {
  for (int64_t row = 0; row < kTileRows; row += 8) {
    const __m256 d = LoadHalves(header + 2 * row);
    for (int64_t i = 0; i < 8; ++i) {
      const std::byte* bytes = header + (2 + first + i) * kTileRows + row;
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
      const __m256 integers = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
      _mm256_storeu_ps(&block->scales[i][row], _mm256_mul_ps(d, integers));
    }
  }
}

// `groups` groups of int5: scales, then minima.
void LoadGroups(const std::byte* header, int64_t groups, bool minimum, Block* block) {
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t row = 0; row < kTileRows; row += 8) {
      const std::byte* scales = header + 2 * (group * kTileRows + row);
      _mm256_storeu_ps(&block->scales[group][row], LoadHalves(scales));
      if (!minimum) continue;
      _mm256_storeu_ps(&block->minimums[group][row], LoadHalves(scales + groups * kTileRows * 2));
    }
  }
}

void LoadBlock(const TileLayout& layout, const std::byte* tile, int64_t index, Block* block) {
  const WeightType& type = layout.type;
  const auto number = static_cast<uint64_t>(index);
  block->groups = layout.block_groups(number);
  block->middle = MiddleOf(type.kind);
  if (!type.has_super_blocks()) {
    const std::byte* header = tile + number * layout.block_bytes;
    LoadGroups(header, block->groups, type.offset == WeightOffset::kMinimum, block);
    block->values = reinterpret_cast<const uint8_t*>(
        header + layout.block_header_bytes(static_cast<uint32_t>(block->groups)));
    return;
  }
  const std::byte* header = tile + number / 2 * layout.block_bytes;
  const int64_t first = index % 2 * block->groups;
  if (type.kind == WeightKind::kQ6K) {
    LoadEightBits(header, first, block);
  } else {
    LoadSixBits(header, first, block);
  }
  block->values = reinterpret_cast<const uint8_t*>(
      header + layout.block_header_bytes(0) + number % 2 * layout.integer_bytes(kBlockChannels));
}

// Unpacked once for many tokens: bytes as SumProducts takes them.
template <int high>
void Unpack(const Block& block, uint8_t* panel) {
  for (int64_t group = 0; group < block.groups; ++group) {
    const uint8_t* values = block.values + group * Integers<high>::kGroupBytes;
#pragma GCC unroll 8
    for (int64_t step = 0; step < Integers<high>::kSteps; ++step) {
      auto* to = reinterpret_cast<__m256i*>(panel);
      _mm256_store_si256(to, LoadIntegers<high>(values, step, 0));
      _mm256_store_si256(to + 1, LoadIntegers<high>(values, step, 1));
      panel += 64;
    }
  }
}

Token TokenAt(const QuantizedActivations& x, int64_t token, int64_t block) {
  const int64_t group = block * kBlockChannels / x.group_size;
  return {x.values + token * x.padded_cols + block * kBlockChannels,
          x.scales + token * x.groups + group, x.sums + token * x.groups + group};
}

// One block for tokens [first, first + count), up to kBatch of them.
template <int high, bool minimum>
void MultiplyBlock(const MatmulArgs& args, const Block& block, int64_t index, int64_t first,
                   int64_t count, float (*acc)[kTileRows]) {
  alignas(32) uint8_t panel[kBlockChannels * kTileRows];
  const bool direct = count <= kDirect;
  if (!direct) Unpack<high>(block, panel);
  for (int64_t t = 0; t < count; t += kTokens) {
    const int64_t tokens = std::min(kTokens, count - t);
    Token token[kTokens];
    for (int64_t i = 0; i < tokens; ++i) token[i] = TokenAt(*args.xq, first + t + i, index);
    if (direct) {
      AddBlockOfTokens<high, minimum, false>(tokens, block, block.values, token, acc + t);
    } else {
      AddBlockOfTokens<high, minimum, true>(tokens, block, panel, token, acc + t);
    }
  }
}

template <int high, bool minimum>
void Multiply(const MatmulArgs& args) {
  MultiplyAllTiles<Block, LoadBlock, MultiplyBlock<high, minimum>>(args);
}

}  // namespace

void MatmulKQuantAvx2(const MatmulArgs& args) {
  const WeightType& type = args.layout->type;
  switch (type.kind) {
    case WeightKind::kQ4K:
      return Multiply<0, true>(args);
    case WeightKind::kQ6K:
      return Multiply<2, false>(args);
    default:  // int5 and Q5_K
      return type.offset == WeightOffset::kMinimum ? Multiply<1, true>(args)
                                                   : Multiply<1, false>(args);
  }
}

}  // namespace sluice
