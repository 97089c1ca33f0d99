// Weights of every type as rows of bf16, as AMX's B registers and vdpbf16ps take them. Only for
// files compiled for AVX-512 with BF16; everything is local to the file that includes it
// (vector_avx512.h).
#ifndef SLUICE_KERNELS_CPU_PANEL_BF16_H_
#define SLUICE_KERNELS_CPU_PANEL_BF16_H_

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/amx/unpack.h"
#include "kernels/ops.h"

namespace sluice {
namespace {  // NOLINT: see above

constexpr int64_t kBlockPairs = kBlockChannels / 2;

// A block of 128 channels of one tile: element k has channels 2 k and 2 k + 1 of 16 rows, row after
// row.
using Bf16Block = __m512i[kBlockPairs];

// Channels of 16 rows, two by two: rows 4 i and 4 i + 1 in lane i of 128 bits, or the other two.
struct RowPairs {
  __m512 first, second;
};

inline RowPairs SpreadRows(__m512 rows) {
  return {_mm512_permute_ps(rows, 0x50), _mm512_permute_ps(rows, 0xfa)};
}

// To bf16, in the order of the rows.
inline __m512i RoundRows(const RowPairs& pairs) {
  const __m512i order = _mm512_setr_epi32(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
  const __m512i rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(pairs.second, pairs.first));
  return _mm512_permutexvar_epi32(order, rounded);
}

// What makes weights of a group's integers: scale * (integer - zero) + minimum.
struct GroupOf16Rows {
  RowPairs scale, zero, minimum;
};

// A byte under the exponent of 2^23 is 2^23 plus its value; the sum with `zero` is exact.
inline GroupOf16Rows LoadGroup(const WeightType& type, const Panel& panel, int64_t group) {
  constexpr float kTwo23 = 8388608.0f;
  GroupOf16Rows result;
  result.scale = SpreadRows(_mm512_load_ps(panel.scales[group]));
  __m512 zero = _mm512_set1_ps(HasUnsignedPanel(type) ? kTwo23 : kTwo23 + 128);
  if (SubtractsZerosLater(type)) {
    // -z is in the lower 16 bits.
    const __m512i z = _mm512_sub_epi32(
        _mm512_setzero_si512(),
        _mm512_srai_epi32(_mm512_slli_epi32(_mm512_load_si512(panel.zeros[group]), 16), 16));
    zero = _mm512_add_ps(zero, _mm512_cvtepi32_ps(z));
  }
  result.zero = SpreadRows(zero);
  result.minimum =
      SpreadRows(type.offset == WeightOffset::kMinimum ? _mm512_load_ps(panel.minimums[group])
                                                       : _mm512_setzero_ps());
  return result;
}

// Four weights of each row from their bytes, of which `bytes` picks two of two rows in each lane.
template <bool has_minimum>
inline __m512 WeightsOf(__m512i values, __m128i bytes, __m512 scale, __m512 zero, __m512 minimum) {
  constexpr __mmask64 kLowest = 0x1111111111111111u;
  const __m512i exponent = _mm512_set1_epi32(0x4b000000);
  const __m512i bits =
      _mm512_mask_shuffle_epi8(exponent, kLowest, values, _mm512_broadcast_i32x4(bytes));
  const __m512 integers = _mm512_sub_ps(_mm512_castsi512_ps(bits), zero);
  if constexpr (has_minimum) return _mm512_fmadd_ps(integers, scale, minimum);
  return _mm512_mul_ps(integers, scale);
}

template <bool has_minimum>
void DequantizePanel(const WeightType& type, const Panel& panel, int64_t channels, Bf16Block out) {
  const int64_t group_steps = ActivationGroup(type) / 4;
  const bool whole_rows = type.group_size == 0;
  const __m512i sign = _mm512_set1_epi8(static_cast<char>(HasUnsignedPanel(type) ? 0 : 0x80));
  for (int64_t begin = 0; begin < channels / 4; begin += group_steps) {
    const GroupOf16Rows g = LoadGroup(type, panel, whole_rows ? 0 : begin / group_steps);
    const int64_t end = std::min(begin + group_steps, channels / 4);
    for (int64_t step = begin; step < end; ++step) {
      const __m512i values = _mm512_xor_si512(_mm512_load_si512(panel.values[step]), sign);
      const auto pair = [&](int first) {
        const __m128i low = _mm_setr_epi32(first, first + 1, first + 4, first + 5);
        const __m128i high = _mm_add_epi32(low, _mm_set1_epi32(8));
        return RoundRows(
            {WeightsOf<has_minimum>(values, low, g.scale.first, g.zero.first, g.minimum.first),
             WeightsOf<has_minimum>(values, high, g.scale.second, g.zero.second,
                                    g.minimum.second)});
      };
      _mm512_store_si512(out + 2 * step, pair(0));
      _mm512_store_si512(out + 2 * step + 1, pair(2));
    }
  }
}

// f32, f16, bf16: `pairs` of channels, of the last one without its second channel if `odd`.
inline void RoundFloats(WeightKind kind, const std::byte* from, int64_t pairs, bool odd,
                        int64_t ahead, Bf16Block out) {
  const int64_t pair_bytes = kTileRows * (kind == WeightKind::kF32 ? 8 : 4);
  for (int64_t pair = 0; pair < pairs; ++pair, from += pair_bytes) {
    const bool half = odd && pair == pairs - 1;
    Prefetch(from, ahead);
    __m512i rounded;
    if (kind == WeightKind::kBF16) {
      rounded = _mm512_loadu_si512(from);
    } else if (kind == WeightKind::kF16) {
      rounded =
          reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(LoadHalves(from + 32), LoadHalves(from)));
    } else {
      const __m512 even = _mm512_loadu_ps(from);
      // The tile may end with the even channel.
      const __m512 next = half ? _mm512_setzero_ps() : _mm512_loadu_ps(from + 64);
      rounded = RoundRows({_mm512_unpacklo_ps(even, next), _mm512_unpackhi_ps(even, next)});
    }
    if (half) rounded = _mm512_and_si512(rounded, _mm512_set1_epi32(0xffff));
    _mm512_store_si512(out + pair, rounded);
  }
}

// Block `index` of a tile, zero beyond the row. Weights that lie `ahead` bytes further on are
// fetched.
inline void DequantizeBf16(const TileLayout& layout, const std::byte* tile, int64_t index,
                           int64_t ahead, Bf16Block out) {
  int64_t pairs = 0;
  if (layout.type.quantized()) {
    Panel panel;
    Unpack(layout, tile, index, ahead, &panel);
    const int64_t channels = layout.block_channels(static_cast<uint64_t>(index));
    pairs = channels / 2;
    if (layout.type.offset == WeightOffset::kMinimum) {
      DequantizePanel<true>(layout.type, panel, channels, out);
    } else {
      DequantizePanel<false>(layout.type, panel, channels, out);
    }
  } else {
    const WeightKind kind = layout.type.kind;
    const int64_t begin = index * kBlockChannels;
    const int64_t channels =
        std::min<int64_t>(kBlockChannels, static_cast<int64_t>(layout.cols) - begin);
    pairs = (channels + 1) / 2;
    RoundFloats(kind, tile + begin * kTileRows * (kind == WeightKind::kF32 ? 4 : 2), pairs,
                channels % 2 != 0, ahead, out);
  }
  for (int64_t pair = pairs; pair < kBlockPairs; ++pair) {
    _mm512_store_si512(out + pair, _mm512_setzero_si512());
  }
}

}  // namespace
}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_PANEL_BF16_H_
