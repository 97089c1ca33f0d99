// The online softmax of the attention (Milakov and Gimelshein, 2018): scores of a tile of keys
// become weights. Scores are in the logarithm to base 2.
#ifndef SLUICE_KERNELS_CUDA_ATTENTION_SOFTMAX_H_
#define SLUICE_KERNELS_CUDA_ATTENTION_SOFTMAX_H_

#include <cmath>

#include "kernels/cuda/attention_keys.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/ops.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

inline constexpr float kLog2E = 1.4426950408889634f;

// The softmax of two rows, g and g + 8 of the warp, as far as it has come.
struct Softmax {
  float largest[2];
  float sum[2];  // of this lane's keys
};

__device__ __forceinline__ float RoundToBf16(float value) {
  const uint32_t bits = BitsOfFloat(value);
  return FloatFromBits((bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u);
}

// What ALiBi adds to a score.
__device__ __forceinline__ float Bias(const AttentionArgs& args, float slope, int64_t key,
                                      int64_t own) {
  if (!args.slopes_in_bf16) return slope * static_cast<float>(key - own);
  return args.scale * (RoundToBf16(slope * RoundToBf16(static_cast<float>(key))) -
                       RoundToBf16(slope * RoundToBf16(static_cast<float>(own))));
}

// The score of a key for a row at the position `own`, in the logarithm to base 2, from the scaled
// product of the two: with its bias and under the cap; -infinity where the row does not see it.
// `position` says the key's; in a tree of one that the row sees.
template <bool kTree, typename Position>
__device__ __forceinline__ float WholeScore(const AttentionArgs& args, float slope, int64_t own,
                                            bool seen, const Position& position, float score) {
  if (args.slopes != nullptr && (!kTree || seen)) {
    const float bias = Bias(args, slope, position(), own);
    score += args.softcap == 0 ? bias * kLog2E : bias;
  }
  if (args.softcap != 0) score = args.softcap * tanhf(score / args.softcap) * kLog2E;
  return seen ? score : FloatFromBits(0xff800000u);
}

// Scores to weights, which replace them; returns what earlier results are multiplied by.
template <int kKeys, bool kTree>
__device__ __forceinline__ void Weigh(const AttentionArgs& args, const Sight& sight,
                                      int64_t first_key, float (&scores)[kKeys / 8][4],
                                      Softmax* softmax, float (&correction)[2]) {
  const float minus_infinity = FloatFromBits(0xff800000u);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Keys& keys = sight.keys[half];
    float largest = softmax->largest[half];
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        const int64_t key = first_key + n * 8 + Lane() % 4 * 2 + i;
        const auto position = [&] { return PositionOf<kTree>(keys, key); };
        score = WholeScore<kTree>(args, sight.slope[half], keys.own, Sees<kTree>(keys, key),
                                  position, score);
        largest = fmaxf(largest, score);
      }
    }
    largest = fmaxf(largest, ShuffleXor(largest, 1));
    largest = fmaxf(largest, ShuffleXor(largest, 2));
    // While a row has seen no key there is nothing to correct, and its weights are 0.
    const bool none = largest == minus_infinity;
    correction[half] = none ? 1.0f : exp2f(softmax->largest[half] - largest);
    softmax->largest[half] = largest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[n][2 * half + i];
        score = score == minus_infinity ? 0.0f : exp2f(score - largest);
        sum += score;
      }
    }
    softmax->sum[half] = softmax->sum[half] * correction[half] + sum;
  }
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_ATTENTION_SOFTMAX_H_
