// Blocks of quantized weights as the bytes of AMX's B registers. Only for files compiled for
// AVX-512; everything is local to the file that includes it (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_AMX_UNPACK_H_
#define SLUICE_KERNELS_CPU_AMX_UNPACK_H_

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kMaxGroups = 8;  // of a block: 128 channels in groups of 16
constexpr int64_t kMaxSteps = kBlockChannels / 4;

// A block of 128 channels of one tile of weights. Row k of `values` has channels 4 k to 4 k + 3 of
// 16 rows, row after row: what AMX takes for B. Without an offset, and of int4 with zero points,
// the zero points are subtracted already (they are signed then).
struct Panel {
  alignas(64) uint8_t values[kMaxSteps][64];
  alignas(64) float scales[kMaxGroups][kTileRows];
  alignas(64) float minimums[kMaxGroups][kTileRows];  // where there are minima
  alignas(64) int32_t zeros[kMaxGroups][kTileRows];   // int8: -z in the lower 16 bits, 0 above
};

// int8 has no room for q - z, nor for q as a signed byte.
inline bool SubtractsZerosLater(const WeightType& type) {
  return type.kind == WeightKind::kInt8 && type.offset == WeightOffset::kZeroPoint;
}
inline bool HasUnsignedPanel(const WeightType& type) {
  return type.kind == WeightKind::kInt8 && type.offset != WeightOffset::kNone;
}

inline __m128i Load16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 BytesToFloats(__m128i bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

// What is subtracted from the integers of each group: byte 4 r + i is row r's.
using Subtrahends = __m512i[kMaxGroups];

inline __m512i RepeatEachByte(__m128i bytes) {
  return _mm512_mullo_epi32(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(0x01010101));
}

// Scales and offsets of int4, int8 and int5: f16 scales group after group, then the offsets.
inline void UnpackHeader(const WeightType& type, const std::byte* header, int64_t groups,
                         Panel* panel, Subtrahends subtrahends) {
  const std::byte* offsets = header + groups * kTileRows * 2;
  for (int64_t group = 0; group < groups; ++group) {
    _mm512_store_ps(panel->scales[group], LoadHalves(header + group * kTileRows * 2));
    subtrahends[group] = _mm512_setzero_si512();
    if (type.offset == WeightOffset::kNone) {
      subtrahends[group] = _mm512_set1_epi8(static_cast<char>(MiddleOf(type.kind)));
    } else if (type.offset == WeightOffset::kMinimum) {
      _mm512_store_ps(panel->minimums[group], LoadHalves(offsets + group * kTileRows * 2));
    } else if (SubtractsZerosLater(type)) {
      const __m512i zeros = _mm512_cvtepu8_epi32(Load16(offsets + group * kTileRows));
      const __m512i negative = _mm512_sub_epi32(_mm512_setzero_si512(), zeros);
      _mm512_store_si512(panel->zeros[group],
                         _mm512_and_si512(negative, _mm512_set1_epi32(0xffff)));
    } else {
      subtrahends[group] = RepeatEachByte(Load16(offsets + group * kTileRows));
    }
  }
}

// The same of a half of a super-block, whose first group is number `first` of its header.
inline void UnpackSuperHeader(WeightKind kind, const std::byte* header, int64_t first,
                              int64_t groups, Panel* panel, Subtrahends subtrahends) {
  const __m512 d = LoadHalves(header);
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t place = first + group;
    if (kind == WeightKind::kQ6K) {
      const __m512i integers = _mm512_cvtepi8_epi32(Load16(header + (2 + place) * kTileRows));
      _mm512_store_ps(panel->scales[group], _mm512_mul_ps(d, _mm512_cvtepi32_ps(integers)));
      subtrahends[group] = _mm512_set1_epi8(static_cast<char>(MiddleOf(kind)));
      continue;
    }
    // Six bits each of a scale and a minimum: the lower four share a byte, the upper two of two
    // groups another one.
    const __m128i low = Load16(header + (4 + place) * kTileRows);
    __m128i high = Load16(header + (12 + place / 2) * kTileRows);
    if (place % 2 == 0) high = _mm_slli_epi16(high, 4);  // scales to bits 4, 5; minima to 6, 7
    const __m128i nibble = _mm_set1_epi8(15);
    const __m128i top = _mm_set1_epi8(48);
    const __m128i scales = _mm_or_si128(_mm_and_si128(low, nibble), _mm_and_si128(high, top));
    const __m128i minimums = _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), nibble),
                                          _mm_and_si128(_mm_srli_epi16(high, 2), top));
    const __m512 dmin = LoadHalves(header + 2 * kTileRows);
    const __m512 minus = _mm512_xor_ps(dmin, _mm512_set1_ps(-0.0f));
    _mm512_store_ps(panel->scales[group], _mm512_mul_ps(d, BytesToFloats(scales)));
    _mm512_store_ps(panel->minimums[group], _mm512_mul_ps(minus, BytesToFloats(minimums)));
    subtrahends[group] = _mm512_setzero_si512();
  }
}

inline void Prefetch(const void* p, int64_t ahead) {
  _mm_prefetch(static_cast<const char*>(p) + ahead, _MM_HINT_T1);
}

inline void UnpackBytes(const uint8_t* from, int64_t steps, int64_t group_steps, int64_t ahead,
                        const Subtrahends subtrahends, Panel* panel) {
  for (int64_t step = 0; step < steps; ++step) {
    Prefetch(from + 64 * step, ahead);
    const __m512i integers = _mm512_loadu_si512(from + 64 * step);
    _mm512_store_si512(panel->values[step],
                       _mm512_sub_epi8(integers, subtrahends[step / group_steps]));
  }
}

// Nibbles, with planes of the integers' upper bits before those that they belong to.
template <int high_bits>
inline void UnpackNibbles(const uint8_t* from, int64_t steps, int64_t group_steps, int64_t ahead,
                          const Subtrahends subtrahends, Panel* panel) {
  constexpr int64_t kPlaneSteps = high_bits == 0 ? 2 : 8 / high_bits;  // that share a plane
  const __m512i nibble = _mm512_set1_epi8(15);
  const __m512i upper = _mm512_set1_epi8(high_bits == 1 ? 16 : 48);
  for (int64_t begin = 0; begin < steps; begin += kPlaneSteps) {
    __m512i plane = _mm512_setzero_si512();
    if constexpr (high_bits != 0) {
      Prefetch(from, ahead);
      plane = _mm512_loadu_si512(from);
      from += 64;
    }
    for (int64_t step = begin; step < begin + kPlaneSteps; step += 2, from += 64) {
      Prefetch(from, ahead);
      const __m512i both = _mm512_loadu_si512(from);
      __m512i first = _mm512_and_si512(both, nibble);
      __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
      if constexpr (high_bits != 0) {
        // The plane's lowest bits are this step's: they go to bits 4 and 5.
        const __m512i next = _mm512_srli_epi16(plane, high_bits);
        first = _mm512_or_si512(first, _mm512_and_si512(_mm512_slli_epi16(plane, 4), upper));
        second = _mm512_or_si512(second, _mm512_and_si512(_mm512_slli_epi16(next, 4), upper));
        plane = _mm512_srli_epi16(plane, 2 * high_bits);
      }
      const __m512i subtrahend = subtrahends[step / group_steps];
      _mm512_store_si512(panel->values[step], _mm512_sub_epi8(first, subtrahend));
      _mm512_store_si512(panel->values[step + 1], _mm512_sub_epi8(second, subtrahend));
    }
  }
}

// Block `index` of a tile. Weights that lie `ahead` bytes further on are fetched.
inline void Unpack(const TileLayout& layout, const std::byte* tile, int64_t index, int64_t ahead,
                   Panel* panel) {
  const WeightType& type = layout.type;
  const auto number = static_cast<uint64_t>(index);
  const int64_t channels = layout.block_channels(number);
  const int64_t group_size = type.group_size == 0 ? kBlockChannels : type.group_size;
  Subtrahends subtrahends;
  const std::byte* values;
  if (type.has_super_blocks()) {
    const int64_t groups = kBlockChannels / group_size;
    const std::byte* header = tile + number / 2 * layout.block_bytes;
    UnpackSuperHeader(type.kind, header, index % 2 * groups, groups, panel, subtrahends);
    values =
        header + layout.block_header_bytes(0) + number % 2 * layout.integer_bytes(kBlockChannels);
  } else {
    const std::byte* block = tile + layout.tile_header_bytes + number * layout.block_bytes;
    const uint32_t groups = layout.block_groups(number);
    const bool whole_rows = type.group_size == 0;
    UnpackHeader(type, whole_rows ? tile : block, whole_rows ? 1 : groups, panel, subtrahends);
    values = block + layout.block_header_bytes(groups);
  }
  const auto* from = reinterpret_cast<const uint8_t*>(values);
  const int64_t steps = channels / 4;
  const int64_t group_steps = group_size / 4;
  switch (IntegerBits(type.kind)) {
    case 8:
      UnpackBytes(from, steps, group_steps, ahead, subtrahends, panel);
      break;
    case 6:
      UnpackNibbles<2>(from, steps, group_steps, ahead, subtrahends, panel);
      break;
    case 5:
      UnpackNibbles<1>(from, steps, group_steps, ahead, subtrahends, panel);
      break;
    default:
      UnpackNibbles<0>(from, steps, group_steps, ahead, subtrahends, panel);
      break;
  }
  // A product with what was there before would be with a zero of the activations; but a register
  // shall not read what nobody wrote.
  for (int64_t step = steps; step < kMaxSteps; ++step) std::memset(panel->values[step], 0, 64);
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_UNPACK_H_
