// Integer weights times one token: bound by reading the weights once. A block takes one tile. Four
// of its warps take batches of chunks in turn, each with copies of its next ones on their way; the
// fifth adds up what they made the round before, so that its chain of FMAs, which the numeric
// contract puts in order, is beside their work and not behind it.
//
// The tensor cores multiply 16 rows by 8 columns. The columns are here not tokens but groups: the
// right operand of a step is the token's activations in the column of the step's group and zeros in
// the others, so that a batch's products of all groups end up spread evenly over the lanes.
#include "kernels/cuda/matmul_one_terms.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

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
  TwoTerms* const place = &exchange->terms[Warp()][Lane() / 4][E::TermAt(Lane() / 4, pair)];
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
