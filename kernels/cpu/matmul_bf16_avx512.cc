// Products in bf16 with vdpbf16ps: pairs of channels, in ascending order, in one chain for each
// token and row.
#include <algorithm>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/matmul_bf16.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 8;  // whose sums of two tiles fit the registers

// Some of the tokens that a register of AMX would hold, from number `token` of the batch on.
template <int tokens, int tiles>
void AddTokens(const Bf16Slab& slab, int64_t token) {
  const uint16_t* x =
      slab.x + token / kBf16Tokens * slab.x_stride + token % kBf16Tokens * kBf16Channels;
  __m512 sums[tiles][tokens];
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) {
      sums[n][t] = slab.first ? _mm512_setzero_ps() : _mm512_load_ps(slab.sums[n][token + t]);
    }
  }
  for (int64_t step = 0; step < slab.steps; ++step, x += kBf16Tokens * kBf16Channels) {
    for (int64_t pair = 0; pair < kBf16StepPairs; ++pair) {
      __m512bh weights[tiles];
#pragma GCC unroll 2
      for (int n = 0; n < tiles; ++n) {
        weights[n] = reinterpret_cast<__m512bh>(
            _mm512_load_si512(slab.weights[n] + step * kBf16StepPairs + pair));
      }
#pragma GCC unroll 8
      for (int t = 0; t < tokens; ++t) {
        int32_t two;
        std::memcpy(&two, x + t * kBf16Channels + 2 * pair, sizeof(two));
        const auto both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
#pragma GCC unroll 2
        for (int n = 0; n < tiles; ++n) sums[n][t] = _mm512_dpbf16_ps(sums[n][t], weights[n], both);
      }
    }
  }
  for (int n = 0; n < tiles; ++n) {
    for (int t = 0; t < tokens; ++t) _mm512_store_ps(slab.sums[n][token + t], sums[n][t]);
  }
}

template <int tiles>
void AddAll(const Bf16Slab& slab) {
  using Function = decltype(&AddTokens<1, tiles>);
  static constexpr Function kFunctions[kTokens] = {
      AddTokens<1, tiles>, AddTokens<2, tiles>, AddTokens<3, tiles>, AddTokens<4, tiles>,
      AddTokens<5, tiles>, AddTokens<6, tiles>, AddTokens<7, tiles>, AddTokens<8, tiles>};
  for (int64_t token = 0; token < slab.tokens; token += kTokens) {
    kFunctions[std::min(kTokens, slab.tokens - token) - 1](slab, token);
  }
}

struct VectorProducts {
  static constexpr int64_t kSlabBlocks = 2;  // 16 KiB of two tiles

  void Add(const Bf16Slab& slab) const {
    if (slab.tiles == 2) return AddAll<2>(slab);
    AddAll<1>(slab);
  }
};

}  // namespace

void MatmulBf16Avx512(const MatmulArgs& args, CUstream_st*) { MatmulBf16<VectorProducts>(args); }

}  // namespace sluice
