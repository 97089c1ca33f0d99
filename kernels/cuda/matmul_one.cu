// Integer weights times one token: bound by reading the weights once. A block takes one tile. Four
// of its warps take batches of chunks in turn, each with copies of its next ones on their way; the
// fifth adds up what they made the round before, so that its chain of FMAs, which the numeric
// contract puts in order, is beside their work and not behind it.
//
// The tensor cores multiply 16 rows by 8 columns. The columns are here not tokens but groups: the
// right operand of a step is the token's activations in the column of the step's group and zeros in
// the others, so that a batch's products of all groups end up spread evenly over the lanes.
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

// What the warps made of one round, by pairs of groups. Rows are padded so that lanes meet
// different banks.
template <int kColumns>
struct Exchange {
  static constexpr int kPairs = kColumns / 2;
  TwoTerms terms[kWarps][kRows][kPairs + (kPairs == 1 ? 0 : 1)];
  // For types with minima those, and what each is multiplied with.
  Two minima[kWarps][kRows][kPairs + 1];
  Two x_sums[kWarps][kPairs];
};

// The chunks of one tile.
struct Chunks {
  const std::byte* bytes;
  int chunk_bytes;
  int last, last_bytes;  // the last one, which may be short
  int end;
};

template <typename S>
__device__ __forceinline__ void CopyBatch(const Chunks& chunks, int first, std::byte* to) {
  const std::byte* from = chunks.bytes + int64_t{first} * chunks.chunk_bytes + Lane() * 16;
  to += Lane() * 16;
  constexpr int kStride = kWarpThreads * 16;
  const int rest = chunks.end - first;
  if (rest >= S::kBatch && first + S::kBatch <= chunks.last) {
    const int bytes = S::kBatch * chunks.chunk_bytes - Lane() * 16;
#pragma unroll
    for (int i = 0; i < S::kValueBytes; i += kStride) CopyAsync16(to + i, from + i);
#pragma unroll
    for (int i = S::kValueBytes; i < S::kValueBytes + S::kBatch * kMostParameterBytes;
         i += kStride) {
      if (i < bytes) CopyAsync16(to + i, from + i);
    }
  } else if (rest > 0) {
    const int count = rest < S::kBatch ? rest : S::kBatch;
    int bytes = count * chunks.chunk_bytes - Lane() * 16;
    if (first + count > chunks.last) bytes += chunks.last_bytes - chunks.chunk_bytes;
    for (int i = 0; i < bytes; i += kStride) CopyAsync16(to + i, from + i);
  }
  CommitCopies();
}

// The activations of a lane's column, its 8 channels of each step.
template <typename S>
__device__ __forceinline__ void LoadColumn(const QuantizedActivations& x, int first, int end,
                                           Words2 (&out)[S::kSteps]) {
  using G = typename S::G;
  const int column = Lane() / 4;
  const int t = Lane() % 4;
  const int chunk = first + column / G::kCount;
  const int step = G::StepOf(column % G::kCount, 0);
  const int channel = chunk * kChunkChannels + step * kStepChannels;
  const bool is_there = column < S::kColumns && chunk < end && G::IsMine(column);
#pragma unroll
  for (int i = 0; i < S::kSteps; ++i) {
    out[i] = {};
    if (is_there && channel + i * kStepChannels < x.padded_cols) {
      out[i] = *reinterpret_cast<const Words2*>(x.values + channel + i * kStepChannels + 8 * t);
    }
  }
}

// The products of a batch: 16 rows x kColumns groups, as the tensor cores leave them.
template <typename S>
__device__ __forceinline__ void MultiplyBatch(const std::byte* batch, int chunk_bytes,
                                              const Words2 (&x)[S::kSteps],
                                              int32_t (&products)[4]) {
  using G = typename S::G;
  // High nibbles of four-bit weights are multiplied where they lie, as 16 times what they are.
  constexpr bool kInPlace = S::kBits == 4;
  int32_t sums[2][2][4] = {};  // several, so that products do not wait for each other
#pragma unroll
  for (int i = 0; i < S::kBatch; ++i) {
#pragma unroll
    for (int step = 0; step < kChunkSteps; ++step) {
      uint32_t a[4];
      if constexpr (kInPlace) {
        const std::byte* unit = batch + i * chunk_bytes + step / 2 * kUnitBytes<4>;
        const auto words = reinterpret_cast<const Words4*>(unit)[Lane()];
#pragma unroll
        for (int j = 0; j < 4; ++j) a[j] = words.word[j] & (0x0f0f0f0fu << (step % 2 * 4));
      } else {
        LoadWeights<S::kBits>(batch + i * chunk_bytes, step, a);
      }
      // The first of the step's columns, of which groups of 16 have two.
      constexpr int kOfStep = S::kGroupChannels < kStepChannels ? 2 : 1;
      const int column = i * G::kCount + step * kStepChannels / S::kGroupChannels;
      const Words2& mine = x[step % S::kSteps];
      const bool is_mine = Lane() / 4 / kOfStep == column / kOfStep;
      MmaU8S8(sums[i % 2][step % 2], a, is_mine ? mine.word[0] : 0, is_mine ? mine.word[1] : 0);
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int32_t odd = sums[0][1][j] + sums[1][1][j];
    products[j] = sums[0][0][j] + sums[1][0][j] + (kInPlace ? odd >> 4 : odd);
  }
}

// The activations' scales and sums of the groups of a lane's two columns. Groups from `end_group`
// on are nobody's.
struct ColumnScales {
  bool is_there[2];
  float scales[2];
  int32_t sums[2];
};
template <typename S>
__device__ __forceinline__ void LoadScales(const QuantizedActivations& x, int first, int end_group,
                                           ColumnScales* out) {
  const int group = first * S::G::kCount + 2 * (Lane() % 4);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const bool is_column = S::kColumns == 8 || 2 * (Lane() % 4) < S::kColumns;
    out->is_there[j] = is_column && group + j < end_group;
    out->scales[j] = out->is_there[j] ? x.scales[group + j] : 0.0f;
    out->sums[j] = out->is_there[j] ? x.sums[group + j] : 0;
  }
}

// Scales and products of a batch, as terms of the sums.
template <typename S>
__device__ __forceinline__ void WriteTerms(const IntMatrix& matrix, const ColumnScales& x,
                                           const GroupScale (&of_row)[2], const std::byte* batch,
                                           int first, const int32_t (&products)[4],
                                           Exchange<S::kColumns>* out) {
  using G = typename S::G;
  const int g = Lane() / 4;
  const int t = Lane() % 4;
  if (!x.is_there[0]) return;
  const bool has_minimum = matrix.offset == WeightOffset::kMinimum;
  const std::byte* parameters[2];
  int groups[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int chunk = (2 * t + j) / G::kCount;
    const ChunkShape shape = ShapeOfChunk<S::kBits, S::kGroupChannels>(matrix, first + chunk);
    parameters[j] = batch + chunk * matrix.chunk_bytes + shape.value_bytes;
    groups[j] = shape.groups;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = g + 8 * half;
    float terms[2][2] = {};
    float minima[2] = {};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (!x.is_there[j]) continue;
      GroupScale weight = of_row[half];
      if (S::kGroupChannels != kChunkChannels || !matrix.whole_rows) {
        weight =
            LoadScale(matrix, S::kBits, parameters[j], groups[j], (2 * t + j) % G::kCount, row);
      }
      terms[j][0] = weight.scale * x.scales[j];
      terms[j][1] = static_cast<float>(products[2 * half + j] - weight.zero * x.sums[j]);
      minima[j] = weight.minimum;
    }
    out->terms[Warp()][row][t] = {terms[0][0], terms[0][1], terms[1][0], terms[1][1]};
    if (has_minimum) out->minima[Warp()][row][t] = {minima[0], minima[1]};
  }
  if (has_minimum && g == 0) {
    out->x_sums[Warp()][t] = {x.scales[0] * static_cast<float>(x.sums[0]),
                              x.scales[1] * static_cast<float>(x.sums[1])};
  }
}

// Adds the first `count` groups of a round to one row's sum, in order.
template <int kColumns, bool kHasMinimum>
__device__ __forceinline__ float AddRound(const Exchange<kColumns>& round, int count, int row,
                                          float sum) {
  constexpr int kPairs = kColumns / 2;
#pragma unroll
  for (int i = 0; i < kWarps * kPairs; ++i) {
    if (2 * i >= count) break;
    const TwoTerms terms = round.terms[i / kPairs][row][i % kPairs];
    Two minima = {};
    Two x_sums = {};
    if constexpr (kHasMinimum) {
      minima = round.minima[i / kPairs][row][i % kPairs];
      x_sums = round.x_sums[i / kPairs][i % kPairs];
    }
    sum = fmaf(terms.scale0, terms.products0, sum);
    if (kHasMinimum) sum = fmaf(minima.value0, x_sums.value0, sum);
    if (2 * i + 1 >= count) break;
    sum = fmaf(terms.scale1, terms.products1, sum);
    if (kHasMinimum) sum = fmaf(minima.value1, x_sums.value1, sum);
  }
  return sum;
}

template <int kBits, int kGroupChannels>
__global__ void __launch_bounds__(kThreads, 4) MatmulOneKernel(IntMatmul args) {
  LetLaterWorkStart();
  using S = Shape<kBits, kGroupChannels>;
  using E = Exchange<S::kColumns>;
  constexpr int kGroups = S::G::kCount;
  auto* exchange = SharedMemory<E>();  // of this round and the one before
  const BlockPlace place = PlaceOf(args, 1, static_cast<int>(BlockX()));
  const IntMatrix& matrix = args.matrices[place.matrix];
  const std::byte* tile = matrix.tiles + int64_t{place.block} * matrix.tile_bytes;
  const int begin = matrix.chunk_begin;
  const int end = matrix.chunk_end;
  const int rounds = (end - begin + kWarps * S::kBatch - 1) / (kWarps * S::kBatch);

  const auto all_groups = static_cast<int>(args.x.groups);
  const int end_group = end * kGroups < all_groups ? end * kGroups : all_groups;
  if (Warp() == kWarps) {
    WaitForEarlierWork();
    const int row = Lane() % kRows;
    const bool has_minimum = matrix.offset == WeightOffset::kMinimum;
    float sum = 0;
    for (int round = 0; round < rounds; ++round) {
      SyncThreads();
      const int count = end_group - (begin + round * kWarps * S::kBatch) * kGroups;
      sum = has_minimum ? AddRound<S::kColumns, true>(exchange[round % 2], count, row, sum)
                        : AddRound<S::kColumns, false>(exchange[round % 2], count, row, sum);
    }
    if (Lane() < kRows) WriteResult(matrix, 1, int64_t{place.block} * kRows + row, 0, sum);
    return;
  }

  const Chunks chunks = {tile + matrix.header_bytes, matrix.chunk_bytes, matrix.num_chunks - 1,
                         matrix.last_chunk_bytes, end};
  const int stage_bytes = S::kBatch * matrix.chunk_bytes;
  std::byte* ring = reinterpret_cast<std::byte*>(exchange + 2) + Warp() * S::kStages * stage_bytes;
  int first = begin + Warp() * S::kBatch;
  for (int i = 0; i + 1 < S::kStages; ++i) {
    CopyBatch<S>(chunks, first + i * kWarps * S::kBatch, ring + i * stage_bytes);
  }
  GroupScale of_row[2] = {};
  if (kGroupChannels == kChunkChannels && matrix.whole_rows) {
    for (int half = 0; half < 2; ++half) {
      of_row[half] = LoadScale(matrix, kBits, tile, 1, 0, Lane() / 4 + 8 * half);
    }
  }
  WaitForEarlierWork();
  Words2 x[S::kSteps];
  LoadColumn<S>(args.x, first, end, x);
  int filled = S::kStages - 1;  // the stage that is filled next
  int stage = 0;
  for (int round = 0; round < rounds; ++round) {
    CopyBatch<S>(chunks, first + (S::kStages - 1) * kWarps * S::kBatch,
                 ring + filled * stage_bytes);
    filled = filled + 1 == S::kStages ? 0 : filled + 1;
    ColumnScales scales;
    LoadScales<S>(args.x, first, end_group, &scales);
    WaitCopies<S::kStages - 1>();
    SyncWarp();
    const std::byte* batch = ring + stage * stage_bytes;
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
    int32_t products[4];
    MultiplyBatch<S>(batch, matrix.chunk_bytes, x, products);
    LoadColumn<S>(args.x, first + kWarps * S::kBatch, end, x);
    WriteTerms<S>(matrix, scales, of_row, batch, first, products, &exchange[round % 2]);
    first += kWarps * S::kBatch;
    // Also: all lanes are done with the stage that is filled next.
    SyncThreads();
  }
}

template <int kBits, int kGroupChannels>
void LaunchOne(const IntMatmul& args, CUstream_st* stream) {
  using S = Shape<kBits, kGroupChannels>;
  const size_t shared_bytes =
      2 * sizeof(Exchange<S::kColumns>) +
      static_cast<size_t>(kWarps * S::kStages * S::kBatch * MostChunkBytes(args));
  Launch<MatmulOneKernel<kBits, kGroupChannels>>({BlocksOf(args, 1)}, kThreads, shared_bytes,
                                                 stream, args);
}

template <int kBits>
void ChooseGroup(const IntMatmul& args, CUstream_st* stream) {
  if (args.group_size == 32) return LaunchOne<kBits, 32>(args, stream);
  if (args.group_size == 64) return LaunchOne<kBits, 64>(args, stream);
  LaunchOne<kBits, 128>(args, stream);
}

}  // namespace

void MatmulOneToken(const IntMatmul& args, CUstream_st* stream) {
  if (args.bits == 4) return ChooseGroup<4>(args, stream);
  if (args.bits == 5) return LaunchOne<5, 32>(args, stream);
  if (args.bits == 6) return LaunchOne<6, 16>(args, stream);
  if (args.group_size == 16) return LaunchOne<8, 16>(args, stream);
  ChooseGroup<8>(args, stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
