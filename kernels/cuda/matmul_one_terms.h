// The sums of one token's product: what the warps of matmul_one.cu make of their batches' products,
// where they leave it, and how it is added up.
#ifndef SLUICE_KERNELS_CUDA_MATMUL_ONE_TERMS_H_
#define SLUICE_KERNELS_CUDA_MATMUL_ONE_TERMS_H_

#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

constexpr int kWarps = 4;  // that multiply
constexpr int kThreads = (kWarps + 1) * kWarpThreads;
constexpr int kRows = static_cast<int>(kTileRows);

template <int kWeightBits, int kGroup>
struct Shape {
  static constexpr int kBits = kWeightBits;
  static constexpr int kGroupChannels = kGroup;
  using G = Groups<kGroup>;
  // Chunks of a batch: about 4 KiB, and no more groups than columns.
  static constexpr int kMost = kBits == 8 ? 2 : 4;
  static constexpr int kBatch = 8 / G::kCount < kMost ? 8 / G::kCount : kMost;
  static constexpr int kColumns = kBatch * G::kCount;
  static constexpr int kValueBytes = kBatch * kChunkValueBytes<kBits>;
  // Batches that a warp holds or has on their way: two blocks fit 100 KiB.
  static constexpr int kStages = kValueBytes >= 4096 ? 2 : kValueBytes >= 2048 ? 3 : 4;
  // Steps whose right operands come from one column.
  static constexpr int kSteps = G::kSteps;
};

// Of two groups: the sum's next FMA is of a scale and products.
struct alignas(16) TwoTerms {
  float scale0, products0, scale1, products1;
};
struct alignas(8) Two {
  float value0, value1;
};

// What the warps made of one round, by pairs of groups. A row's pairs are turned by its index, so
// that lanes that read the same pair of all rows meet different banks.
template <int kColumns>
struct Exchange {
  static constexpr int kPairs = kColumns / 2;
  TwoTerms terms[kWarps][kRows][kPairs];
  // For types with minima those, and what each is multiplied with.
  Two minima[kWarps][kRows][kPairs];
  Two x_sums[kWarps][kPairs];

  static __device__ __forceinline__ int TermAt(int row, int pair) {
    return (pair + row / (8 / kPairs)) % kPairs;
  }
  static __device__ __forceinline__ int MinimumAt(int row, int pair) {
    return (pair + row / (16 / kPairs)) % kPairs;
  }
};
// The same place in the exchange of this turn, of `place` in the first one.
template <typename E, typename T>
__device__ __forceinline__ T& InTurn(T* place, int turn) {
  return *reinterpret_cast<T*>(reinterpret_cast<std::byte*>(place) +
                               turn * static_cast<int>(sizeof(E)));
}

// The activations' scales and sums of the groups of a lane's two columns. Groups from `end_group`
// on are nobody's.
struct ColumnScales {
  bool is_there[2];
  float scales[2];
  int32_t sums[2];
};
template <typename S>
__device__ __forceinline__ ColumnScales LoadScales(const QuantizedActivations& x, int first,
                                                   bool is_whole, int end_group) {
  const int t = Lane() % 4;
  const int group = first * S::G::kCount + 2 * t;
  const bool is_column = S::kColumns == 8 || 2 * t < S::kColumns;
  ColumnScales out = {};
  if (S::G::kCount > 1 && is_whole && is_column) {
    const auto scales = *reinterpret_cast<const Two*>(x.scales + group);
    const auto sums = *reinterpret_cast<const Words2*>(x.sums + group);
    return {{true, true},
            {scales.value0, scales.value1},
            {static_cast<int32_t>(sums.word[0]), static_cast<int32_t>(sums.word[1])}};
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    out.is_there[j] = is_column && group + j < end_group;
    if (!out.is_there[j]) continue;
    out.scales[j] = x.scales[group + j];
    out.sums[j] = x.sums[group + j];
  }
  return out;
}

// How the scales of a matrix lie.
enum class Form { kPlain, kZeroPoint, kMinimum, kSuper, kSuperMinimum, kRow, kAny };
__device__ __forceinline__ Form FormOf(const IntMatrix& matrix) {
  const bool has_minimum = matrix.offset == WeightOffset::kMinimum;
  if (matrix.whole_rows) return Form::kRow;
  if (matrix.super_scales) return has_minimum ? Form::kSuperMinimum : Form::kSuper;
  if (has_minimum) return Form::kMinimum;
  return matrix.offset == WeightOffset::kZeroPoint ? Form::kZeroPoint : Form::kPlain;
}
// What LoadScale asks a matrix for.
struct FixedForm {
  WeightOffset offset;
  bool super_scales;
};

// Scales and products of a batch, as terms of the sums. With a form other than kAny the batch is of
// whole chunks, and all of its groups are there.
template <typename S, Form kForm>
__device__ __forceinline__ void WriteTermsOf(const IntMatrix& matrix, const ColumnScales& x,
                                             const GroupScale (&of_row)[2], const std::byte* batch,
                                             int first, const int32_t (&products)[4],
                                             Exchange<S::kColumns>* exchange, TwoTerms* place,
                                             int turn) {
  using G = typename S::G;
  using E = Exchange<S::kColumns>;
  constexpr bool kAny = kForm == Form::kAny;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  const bool is_minimum = kForm == Form::kMinimum || kForm == Form::kSuperMinimum;
  const FixedForm fixed = {is_minimum                  ? WeightOffset::kMinimum
                           : kForm == Form::kZeroPoint ? WeightOffset::kZeroPoint
                                                       : WeightOffset::kNone,
                           kForm == Form::kSuper || kForm == Form::kSuperMinimum};
  const bool has_minimum =
      kAny || kForm == Form::kRow ? matrix.offset == WeightOffset::kMinimum : is_minimum;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    float terms[2][2] = {};
    float minima[2] = {};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (kAny && !x.is_there[j]) continue;
      // Two columns are of one chunk if a chunk has two.
      const int chunk = 2 * t / G::kCount + (G::kCount == 1 ? j : 0);
      const int group = 2 * t % G::kCount + (G::kCount == 1 ? 0 : j);
      const std::byte* bytes = batch + chunk * matrix.chunk_bytes;
      GroupScale weight = of_row[half];
      if constexpr (kAny) {
        const ChunkShape shape = ShapeOfChunk<S::kBits, S::kGroupChannels>(matrix, first + chunk);
        if (!matrix.whole_rows) {
          weight = LoadScale(matrix, S::kBits, bytes + shape.value_bytes, shape.groups, group, row);
        }
      } else if constexpr (kForm != Form::kRow) {
        weight =
            LoadScale(fixed, S::kBits, bytes + kChunkValueBytes<S::kBits>, G::kCount, group, row);
      }
      terms[j][0] = weight.scale * x.scales[j];
      terms[j][1] = static_cast<float>(products[2 * half + j] - weight.zero * x.sums[j]);
      minima[j] = weight.minimum;
    }
    InTurn<E>(place + half * 8 * E::kPairs, turn) = {terms[0][0], terms[0][1], terms[1][0],
                                                     terms[1][1]};
    if (has_minimum) {
      exchange[turn].minima[Warp()][row][E::MinimumAt(row, t)] = {minima[0], minima[1]};
    }
  }
  if (has_minimum && g == 0) {
    exchange[turn].x_sums[Warp()][t] = {x.scales[0] * static_cast<float>(x.sums[0]),
                                        x.scales[1] * static_cast<float>(x.sums[1])};
  }
}

template <typename S>
__device__ __forceinline__ void WriteTerms(const IntMatrix& matrix, Form form, bool is_whole,
                                           const ColumnScales& x, const GroupScale (&of_row)[2],
                                           const std::byte* batch, int first,
                                           const int32_t (&products)[4],
                                           Exchange<S::kColumns>* exchange, TwoTerms* place,
                                           int turn) {
  if (!x.is_there[0]) return;
  const auto write = [&]<Form kForm>() {
    WriteTermsOf<S, kForm>(matrix, x, of_row, batch, first, products, exchange, place, turn);
  };
  constexpr bool kHasRows = S::kGroupChannels == kChunkChannels;
  constexpr bool kHasSuper = (S::kBits < 8 && S::kGroupChannels == 32) || S::kBits == 6;
  if (!is_whole) return write.template operator()<Form::kAny>();
  if (kHasRows && form == Form::kRow) return write.template operator()<Form::kRow>();
  if constexpr (S::kBits == 6) return write.template operator()<Form::kSuper>();
  if (kHasSuper && form == Form::kSuperMinimum) {
    return write.template operator()<Form::kSuperMinimum>();
  }
  if (form == Form::kPlain) return write.template operator()<Form::kPlain>();
  if (form == Form::kZeroPoint) return write.template operator()<Form::kZeroPoint>();
  write.template operator()<Form::kMinimum>();
}

// Adds the first `count` groups of a round to one row's sum, in order.
template <bool kWhole, bool kHasMinimum, int kColumns>
__device__ __forceinline__ float AddRound(const Exchange<kColumns>& round, int count, int row,
                                          float sum) {
  using E = Exchange<kColumns>;
  constexpr int kPairs = E::kPairs;
#pragma unroll
  for (int i = 0; i < kWarps * kPairs; ++i) {
    if (!kWhole && 2 * i >= count) break;
    const TwoTerms terms = round.terms[i / kPairs][row][E::TermAt(row, i % kPairs)];
    Two minima = {};
    Two x_sums = {};
    if constexpr (kHasMinimum) {
      minima = round.minima[i / kPairs][row][E::MinimumAt(row, i % kPairs)];
      x_sums = round.x_sums[i / kPairs][i % kPairs];
    }
    sum = fmaf(terms.scale0, terms.products0, sum);
    if (kHasMinimum) sum = fmaf(minima.value0, x_sums.value0, sum);
    if (!kWhole && 2 * i + 1 >= count) break;
    sum = fmaf(terms.scale1, terms.products1, sum);
    if (kHasMinimum) sum = fmaf(minima.value1, x_sums.value1, sum);
  }
  return sum;
}

}  // namespace
}  // namespace sluice::SLUICE_CUDA_NAMESPACE

#endif  // SLUICE_KERNELS_CUDA_MATMUL_ONE_TERMS_H_
