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
  static constexpr int kTermStride = kPairs + (kPairs == 1 ? 0 : 1);
  static constexpr int kMinimumStride = kPairs + 1;
  TwoTerms terms[kWarps][kRows][kTermStride];
  // For types with minima those, and what each is multiplied with.
  Two minima[kWarps][kRows][kMinimumStride];
  Two x_sums[kWarps][kPairs];
};
// The same place in the exchange of this turn, of `place` in the first one.
template <typename E, typename T>
__device__ __forceinline__ T& InTurn(T* place, int turn) {
  return *reinterpret_cast<T*>(reinterpret_cast<std::byte*>(place) +
                               turn * static_cast<int>(sizeof(E)));
}
// The chunks of one tile.
struct Chunks {
  const std::byte* bytes;
  int chunk_bytes;
  int last, last_bytes;  // the last one, which may be short
  int end;
};

// A batch's integers are whole strides of the warp, and behind all of them comes less than one
// more.
template <typename S>
__device__ __forceinline__ void CopyBatch(const Chunks& chunks, int first, std::byte* to) {
  constexpr int kStride = kWarpThreads * 16;
  static_assert(S::kColumns * kRows * 4 <= kStride, "a batch's scales and offsets");
  const std::byte* from = chunks.bytes + int64_t{first} * chunks.chunk_bytes + Lane() * 16;
  to += Lane() * 16;
  const int after = first + S::kBatch;
  if (after <= chunks.end && after <= chunks.last) {
#pragma unroll
    for (int i = 0; i < S::kValueBytes; i += kStride) CopyAsync16(to + i, from + i);
    if (S::kValueBytes + Lane() * 16 < S::kBatch * chunks.chunk_bytes) {
      CopyAsync16(to + S::kValueBytes, from + S::kValueBytes);
    }
  } else if (first < chunks.end) {
    const int count = after < chunks.end ? S::kBatch : chunks.end - first;
    int bytes = count * chunks.chunk_bytes - Lane() * 16;
    if (first + count > chunks.last) bytes += chunks.last_bytes - chunks.chunk_bytes;
#pragma unroll 1
    for (int i = 0; i < bytes; i += kStride) CopyAsync16(to + i, from + i);
  }
  CommitCopies();
}

// Which activations are a lane's: the 8 channels of each step of its column. Lanes beyond the last
// column, and those of a group of 16's other half, have some that nobody multiplies.
template <typename S>
struct Column {
  const int8_t* values;  // of the first batch of all
  int channel;
  int step;  // of a batch, at which its column is the one; -1: never
};
template <typename S>
__device__ __forceinline__ Column<S> ColumnOfLane(const QuantizedActivations& x) {
  using G = typename S::G;
  const int own = Lane() / 4;
  const int column = own % S::kColumns;
  const int channel = column * S::kGroupChannels / kStepChannels * kStepChannels + Lane() % 4 * 8;
  const bool is_mine = own < S::kColumns && G::IsMine(own);
  return {x.values + channel, channel, is_mine ? channel / kStepChannels : -1};
}

template <typename S, bool kWhole>
__device__ __forceinline__ void LoadColumn(const Column<S>& column, int first, int end_channel,
                                           Words2 (&out)[S::kSteps]) {
  const int first_channel = first * kChunkChannels;
#pragma unroll
  for (int i = 0; i < S::kSteps; ++i) {
    const int channel = first_channel + i * kStepChannels;
    if (!kWhole) out[i] = {};
    if (kWhole || column.channel + channel < end_channel) {
      out[i] = *reinterpret_cast<const Words2*>(column.values + channel);
    }
  }
}

// The products of a batch: 16 rows x kColumns groups, as the tensor cores leave them.
template <typename S>
__device__ __forceinline__ void MultiplyBatch(const std::byte* batch, int chunk_bytes, int own_step,
                                              const Words2 (&x)[S::kSteps],
                                              int32_t (&products)[4]) {
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
      const Words2& mine = x[step % S::kSteps];
      const int of_column = (i * kChunkSteps + step) / S::kSteps * S::kSteps;
      const bool is_mine = own_step == of_column;
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
    InTurn<E>(place + half * (8 * E::kTermStride), turn) = {terms[0][0], terms[0][1], terms[1][0],
                                                            terms[1][1]};
    if (has_minimum) {
      exchange[turn].minima[Warp()][row][t] = {minima[0], minima[1]};
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
  constexpr int kPairs = kColumns / 2;
#pragma unroll
  for (int i = 0; i < kWarps * kPairs; ++i) {
    if (!kWhole && 2 * i >= count) break;
    const TwoTerms terms = round.terms[i / kPairs][row][i % kPairs];
    Two minima = {};
    Two x_sums = {};
    if constexpr (kHasMinimum) {
      minima = round.minima[i / kPairs][row][i % kPairs];
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

// Four blocks to a multiprocessor that has the shared memory for them; three where that would be
// too few registers.
template <int kBits, int kGroupChannels>
__global__ void __launch_bounds__(kThreads, kGroupChannels == 64 ? 3 : 4)
    MatmulOneKernel(IntMatmul args) {
  LetLaterWorkStart();
  using S = Shape<kBits, kGroupChannels>;
  using E = Exchange<S::kColumns>;
  constexpr int kGroups = S::G::kCount;
  auto* exchange = SharedMemory<E>();  // of this round and the one before
  const BlockPlace block = PlaceOf(args, 1, static_cast<int>(BlockX()));
  const IntMatrix& matrix = args.matrices[block.matrix];
  const std::byte* tile = matrix.tiles + int64_t{block.block} * matrix.tile_bytes;
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
      const E& terms = exchange[round % 2];
      if (count < kWarps * S::kColumns) {
        sum = has_minimum ? AddRound<false, true>(terms, count, row, sum)
                          : AddRound<false, false>(terms, count, row, sum);
      } else {
        sum = has_minimum ? AddRound<true, true>(terms, count, row, sum)
                          : AddRound<true, false>(terms, count, row, sum);
      }
    }
    if (Lane() < kRows) WriteResult(matrix, 1, int64_t{block.block} * kRows + row, 0, sum);
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
  const Form form = FormOf(matrix);
  // Up to the first are batches of whole chunks, activations for all of their channels.
  const auto x_channels = static_cast<int>(args.x.padded_cols);
  const int end_channel = end * kChunkChannels < x_channels ? end * kChunkChannels : x_channels;
  const int whole_channels = matrix.padded_cols < end_channel ? matrix.padded_cols : end_channel;
  const int last_whole = whole_channels / kChunkChannels - S::kBatch;
  const Column<S> column = ColumnOfLane<S>(args.x);
  // Of lanes beyond the last column these are not used.
  const int pair = Lane() % 4 % E::kPairs;
  TwoTerms* const place = &exchange->terms[Warp()][Lane() / 4][pair];
  Words2 x[S::kSteps];
  LoadColumn<S, false>(column, first, end_channel, x);
  int filled = S::kStages - 1;  // the stage that is filled next
  int stage = 0;
  for (int round = 0; round < rounds; ++round) {
    CopyBatch<S>(chunks, first + (S::kStages - 1) * kWarps * S::kBatch,
                 ring + filled * stage_bytes);
    filled = filled + 1 == S::kStages ? 0 : filled + 1;
    const ColumnScales scales = LoadScales<S>(args.x, first, first <= last_whole, end_group);
    WaitCopies<S::kStages - 1>();
    SyncWarp();
    const std::byte* batch = ring + stage * stage_bytes;
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
    int32_t products[4];
    MultiplyBatch<S>(batch, chunks.chunk_bytes, column.step, x, products);
    const int next = first + kWarps * S::kBatch;
    if (next <= last_whole) {
      LoadColumn<S, true>(column, next, end_channel, x);
    } else {
      LoadColumn<S, false>(column, next, end_channel, x);
    }
    WriteTerms<S>(matrix, form, first <= last_whole, scales, of_row, batch, first, products,
                  exchange, place, round % 2);
    first = next;
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
