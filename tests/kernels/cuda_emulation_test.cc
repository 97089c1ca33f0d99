// The emulation that the CUDA kernels' tests stand on: what it computes, and that it shows
// mistakes.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "formats/half.h"
#include "kernels/cuda/intrinsics.h"
#include "kernels/cuda/warp_math.h"

namespace sluice::cuda_emulation {
namespace {

class CudaEmulation : public testing::TestWithParam<Order> {
 protected:
  void SetUp() override { SetOrder(GetParam()); }
  void TearDown() override { SetOrder(Order::kAscending); }
};
INSTANTIATE_TEST_SUITE_P(Orders, CudaEmulation, testing::ValuesIn(kAllOrders));
using CudaEmulationDeathTest = CudaEmulation;
INSTANTIATE_TEST_SUITE_P(Orders, CudaEmulationDeathTest,
                         testing::Values(Order::kAscending, Order::kShuffled));

struct Output {
  float* floats = nullptr;
  int* ints = nullptr;
  const void* from = nullptr;
};

TEST_P(CudaEmulation, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> counts(static_cast<size_t>(96 * 3 * 2 * 2), 0);
  Output out;
  out.ints = counts.data();
  void (*kernel)(Output) = [](Output args) {
    const int64_t block = (BlockZ() * 2 + BlockY()) * 3 + BlockX();
    ++args.ints[block * BlockThreads() + ThreadIndex()];
  };
  LaunchNamed("test", kernel, {3, 2, 2}, 96, 0, nullptr, out);
  EXPECT_EQ(counts, std::vector<int>(counts.size(), 1));
}

TEST_P(CudaEmulation, AnEmptyGridStartsNothing) {
  void (*kernel)(Output) = [](Output) { FAIL(); };
  LaunchNamed("test", kernel, {0}, 32, 0, nullptr, {});
}

TEST_P(CudaEmulation, SharedMemoryAndBarriersPassValuesBetweenWarps) {
  std::vector<int> reversed(128);
  Output out;
  out.ints = reversed.data();
  void (*kernel)(Output) = [](Output args) {
    int* shared = SharedMemory<int>();
    for (int round = 0; round < 3; ++round) {
      shared[ThreadIndex()] = ThreadIndex() + round;
      SyncThreads();
      args.ints[ThreadIndex()] = shared[127 - ThreadIndex()];
      SyncThreads();
    }
  };
  LaunchNamed("test", kernel, {1}, 128, 128 * sizeof(int), nullptr, out);
  for (int i = 0; i < 128; ++i) EXPECT_EQ(reversed[static_cast<size_t>(i)], 127 - i + 2);
}

TEST(CudaEmulation, AMissingBarrierGivesWrongResultsInOneOfTheOrders) {
  std::vector<int> out_values(64);
  Output out;
  out.ints = out_values.data();
  void (*kernel)(Output) = [](Output args) {
    int* shared = SharedMemory<int>();
    shared[ThreadIndex()] = ThreadIndex();
    args.ints[ThreadIndex()] = shared[ThreadIndex() ^ 1];
  };
  int wrong = 0;
  for (Order order : {Order::kAscending, Order::kDescending}) {
    SetOrder(order);
    LaunchNamed("test", kernel, {1}, 64, 64 * sizeof(int), nullptr, out);
    for (int i = 0; i < 64; ++i) wrong += out_values[static_cast<size_t>(i)] != (i ^ 1);
  }
  SetOrder(Order::kAscending);
  EXPECT_EQ(wrong, 64);
}

TEST_P(CudaEmulation, ExchangesOfAWarp) {
  std::vector<int> sums(64);
  std::vector<int> ballots(64);
  Output out;
  out.ints = sums.data();
  out.from = ballots.data();
  void (*kernel)(Output) = [](Output args) {
    args.ints[ThreadIndex()] = WarpSum(ThreadIndex()) + 1000 * Shuffle(ThreadIndex(), 5);
    auto* bits = static_cast<int*>(const_cast<void*>(args.from));
    bits[ThreadIndex()] = static_cast<int>(Ballot(Lane() < 3));
  };
  LaunchNamed("test", kernel, {1}, 64, 0, nullptr, out);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(sums[static_cast<size_t>(i)], i < 32 ? 496 + 5000 : 496 + 32 * 32 + 37000);
    EXPECT_EQ(ballots[static_cast<size_t>(i)], 7);
  }
}

TEST_P(CudaEmulation, ACopyArrivesAtItsWaitAndSpoilsItsTargetBefore) {
  std::vector<float> from(16);
  std::iota(from.begin(), from.end(), 1.0f);
  std::vector<float> seen(16);
  Output out;
  out.floats = seen.data();
  out.from = from.data();
  void (*kernel)(Output) = [](Output args) {
    float* shared = SharedMemory<float>();
    if (ThreadIndex() != 0) return;
    std::memset(shared, 0, 64);
    const auto* source = static_cast<const float*>(args.from);
    CopyAsync16(shared, source);
    CommitCopies();
    CopyAsync16(shared + 4, source + 4);
    CopyAsync16(shared + 8, nullptr, false);
    CopyAsync4(shared + 12, source + 12);
    CommitCopies();
    std::memcpy(args.floats, shared, 16);  // nothing has arrived
    WaitCopies<1>();
    std::memcpy(args.floats + 4, shared, 16);
    std::memcpy(args.floats + 8, shared + 4, 16);  // the second group has not
    WaitCopies<0>();
    std::memcpy(args.floats + 8, shared + 7, 12);
    args.floats[11] = shared[12];
    args.floats[12] = shared[4];
  };
  LaunchNamed("test", kernel, {1}, 32, 64, nullptr, out);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isnan(seen[i]));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(seen[4 + i], from[i]);
  EXPECT_EQ(std::vector<float>(seen.begin() + 8, seen.begin() + 13),
            (std::vector<float>{8, 0, 0, 13, 5}));
}

// Rows of A and columns of B from shared memory by LoadMatrices, as the attention loads them, so
// that a mistake in either fragment order does not cancel out: the product is compared with one of
// plain loops.
struct Product {
  const uint16_t* a;  // [16][16]
  const uint16_t* b;  // [16][8], rows are k
  float* c;           // [16][8]
};

TEST_P(CudaEmulation, F16ProductOfLoadedMatrices) {
  std::mt19937 random(1);
  std::vector<uint16_t> a(256), b(128);
  for (uint16_t& x : a) x = FloatToF16(static_cast<float>(random() % 64) / 8 - 4);
  for (uint16_t& x : b) x = FloatToF16(static_cast<float>(random() % 64) / 8 - 4);
  std::vector<float> c(128);
  void (*kernel)(Product) = [](Product args) {
    auto* shared = SharedMemory<uint16_t>();
    uint16_t* b_rows = shared + 256;
    for (int i = Lane(); i < 256; i += 32) shared[i] = args.a[i];
    // B in rows of 16 so that a second matrix column block may be loaded and ignored.
    for (int i = Lane(); i < 256; i += 32) b_rows[i] = i % 16 < 8 ? args.b[i / 16 * 8 + i % 16] : 0;
    SyncWarp();
    uint32_t a_words[4];
    LoadMatrices(a_words, shared + Lane() % 16 * 16 + Lane() / 16 * 8);
    uint32_t b_words[4];
    LoadMatricesTransposed(b_words, b_rows + Lane() % 16 * 16 + Lane() / 16 * 8);
    float sums[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    MmaF16(sums, a_words, b_words[0], b_words[1]);
    for (int i = 0; i < 4; ++i) {
      args.c[(Lane() / 4 + i / 2 * 8) * 8 + Lane() % 4 * 2 + i % 2] = sums[i];
    }
  };
  LaunchNamed("test", kernel, {1}, 32, 1024, nullptr, {a.data(), b.data(), c.data()});
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      float expected = 0.5f;  // all products and sums are exact
      for (size_t k = 0; k < 16; ++k) {
        expected += F16ToFloat(a[row * 16 + k]) * F16ToFloat(b[k * 8 + column]);
      }
      EXPECT_EQ(c[row * 8 + column], expected);
    }
  }
}

struct ByteProduct {
  const uint8_t* a;  // [16][32]
  const int8_t* b;   // [8][32], rows are columns of B
  int32_t* c;        // [16][8]
};

TEST_P(CudaEmulation, Int8ProductWithUnsignedLeftAndSignedRight) {
  std::mt19937 random(2);
  std::vector<uint8_t> a(512);
  std::vector<int8_t> b(256);
  for (uint8_t& x : a) x = static_cast<uint8_t>(random());
  for (int8_t& x : b) x = static_cast<int8_t>(random());
  std::vector<int32_t> c(128);
  void (*kernel)(ByteProduct) = [](ByteProduct args) {
    // By the tables of the PTX ISA: register i holds row g + 8 (i % 2), bytes 4 t + 16 (i / 2).
    const int g = Lane() / 4;
    const int t = Lane() % 4;
    uint32_t a_words[4];
    for (int i = 0; i < 4; ++i) {
      std::memcpy(&a_words[i], args.a + (g + i % 2 * 8) * 32 + 4 * t + i / 2 * 16, 4);
    }
    uint32_t b_words[2];
    for (int i = 0; i < 2; ++i) std::memcpy(&b_words[i], args.b + g * 32 + 4 * t + i * 16, 4);
    int32_t sums[4] = {1, 2, 3, 4};
    MmaU8S8(sums, a_words, b_words[0], b_words[1]);
    for (int i = 0; i < 4; ++i) args.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i] - (i + 1);
  };
  LaunchNamed("test", kernel, {1}, 32, 0, nullptr, {a.data(), b.data(), c.data()});
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      int32_t expected = 0;
      for (size_t k = 0; k < 32; ++k) expected += int32_t{a[row * 32 + k]} * b[column * 32 + k];
      EXPECT_EQ(c[row * 8 + column], expected);
    }
  }
}

struct Tf32Product {
  const float* a;  // [16][8]
  const float* b;  // [8][8], rows are k
  float* c;        // [16][8]
};

TEST_P(CudaEmulation, Tf32ProductDropsTheLowBits) {
  std::mt19937 random(3);
  std::vector<float> a(128), b(64), c(128);
  for (float& x : a) x = static_cast<float>(random() % 64) - 32;
  for (float& x : b) x = static_cast<float>(random() % 64) - 32;
  std::vector<float> a_with_noise = a;
  for (float& x : a_with_noise) x *= 1 + 0x1p-20f;  // below the 11 bits
  void (*kernel)(Tf32Product) = [](Tf32Product args) {
    const int g = Lane() / 4;
    const int t = Lane() % 4;
    float a_values[4];
    for (int i = 0; i < 4; ++i) a_values[i] = args.a[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
    float sums[4] = {};
    MmaTf32(sums, a_values, args.b[t * 8 + g], args.b[(t + 4) * 8 + g]);
    for (int i = 0; i < 4; ++i) args.c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
  };
  LaunchNamed("test", kernel, {1}, 32, 0, nullptr, {a_with_noise.data(), b.data(), c.data()});
  for (size_t row = 0; row < 16; ++row) {
    for (size_t column = 0; column < 8; ++column) {
      float expected = 0;
      for (size_t k = 0; k < 8; ++k) expected += a[row * 8 + k] * b[k * 8 + column];
      EXPECT_EQ(c[row * 8 + column], expected);
    }
  }
}

TEST(CudaEmulation, Tf32KeepsElevenBitsAndRoundsHalvesAway) {
  EXPECT_EQ(ToTf32(1.0f + 0x1p-10f), 1.0f + 0x1p-10f);
  EXPECT_EQ(ToTf32(1.0f + 0x1p-11f), 1.0f + 0x1p-10f);
  EXPECT_EQ(ToTf32(-1.0f - 0x1p-11f), -1.0f - 0x1p-10f);
  EXPECT_EQ(ToTf32(1.0f + 0x1p-12f), 1.0f);
  EXPECT_EQ(ToTf32(0.0f), 0.0f);
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(ToTf32(infinity), infinity);
  EXPECT_TRUE(std::isnan(ToTf32(std::numeric_limits<float>::quiet_NaN())));
}

// A value of earlier work and one of none, read before and after waiting.
struct EarlyReads {
  int64_t* of_earlier_work;
  const int64_t* weight;
  int64_t* out;  // [6]: read early, copied early, copied late, read late; the weight, both
};

TEST_P(CudaEmulation, AKernelThatDoesNotWaitFindsEarlierWorkUndone) {
  alignas(16) int64_t of_earlier_work[2] = {11, 12};
  alignas(16) const int64_t weight[2] = {13, 14};
  int64_t out[6] = {};
  int hidden = 0;
  int shown = 0;
  const auto swap = [&](int* count) {
    return [&of_earlier_work, count] {
      of_earlier_work[0] = -of_earlier_work[0];
      ++*count;
    };
  };
  SetEarlierWorkHooks(swap(&hidden), swap(&shown));
  void (*kernel)(EarlyReads) = [](EarlyReads args) {
    const bool first = ThreadIndex() == 0;
    auto* shared = SharedMemory<int64_t>();
    if (first) {
      CopyAsync16(shared, args.of_earlier_work);
      CopyAsync16(shared + 2, args.weight);
      args.out[0] = args.of_earlier_work[0];
    }
    CommitCopies();
    TakeTurn();
    if (!first) return;
    CopyAsync16(shared + 4, args.of_earlier_work);
    CommitCopies();
    WaitCopies<0>();
    args.out[1] = shared[0];
    args.out[2] = shared[4];
    args.out[3] = args.of_earlier_work[0];
    args.out[4] = shared[2];
    args.out[5] = args.weight[0];
  };
  LaunchNamed("test", kernel, {1}, 64, 48, nullptr, {of_earlier_work, weight, out}, true);
  SetEarlierWorkHooks({}, {});
  EXPECT_EQ(std::vector<int64_t>(out, out + 6), (std::vector<int64_t>{-11, -11, 11, 11, 13, 13}));
  EXPECT_EQ(hidden, 1);
  EXPECT_EQ(shown, 1);
}

TEST_P(CudaEmulationDeathTest, AThreadThatDoesNotWaitForEarlierWorkIsReported) {
  void (*kernel)(Output) = [](Output) {
    if (BlockX() != 1 || ThreadIndex() != 5) TakeTurn();
  };
  EXPECT_DEATH(LaunchNamed("test", kernel, {2}, 32, 0, nullptr, {}, true),
               "did not come .WaitForEarlierWork., thread 5");
}

// Blocks that count themselves, so that the last one can go on with what the others wrote.
TEST_P(CudaEmulation, TheLastBlockSeesWhatTheOthersWrote) {
  int values[5] = {};
  int out[2] = {};
  struct Work {
    int *values, *counter, *sum;
  };
  void (*kernel)(Work) = [](Work work) {
    auto* last = SharedMemory<int>();
    if (ThreadIndex() == 40) work.values[BlockX()] = static_cast<int>(BlockX()) + 1;
    ThreadFence();
    SyncThreads();
    if (ThreadIndex() == 0) *last = AtomicAdd(work.counter, 1) == 4 ? 1 : 0;
    SyncThreads();
    if (*last == 0 || ThreadIndex() != 7) return;
    for (int i = 0; i < 5; ++i) *work.sum += work.values[i];
  };
  LaunchNamed("test", kernel, {5}, 64, sizeof(int), nullptr, Work{values, &out[0], &out[1]});
  EXPECT_EQ(out[0], 5);
  EXPECT_EQ(out[1], 15);
}

TEST_P(CudaEmulationDeathTest, ABlockThatCountsItselfBeforeAllOfItsThreadsFencedIsReported) {
  static int counter = 0;
  void (*kernel)(Output) = [](Output) {
    if (ThreadIndex() != 3) ThreadFence();
    SyncThreads();
    if (ThreadIndex() == 0) AtomicAdd(&counter, 1);
  };
  EXPECT_DEATH(LaunchNamed("test", kernel, {1}, 32, 0, nullptr, {}), "has not fenced");
}

TEST_P(CudaEmulationDeathTest, ABarrierThatNotAllThreadsReachIsReported) {
  void (*kernel)(Output) = [](Output) {
    if (ThreadIndex() != 17) SyncThreads();
  };
  EXPECT_DEATH(LaunchNamed("test", kernel, {1}, 64, 0, nullptr, {}), "not all threads come");
}

TEST_P(CudaEmulationDeathTest, LanesAtDifferentExchangesAreReported) {
  void (*kernel)(Output) = [](Output) {
    if (Lane() < 16) {
      Ballot(true);
    } else {
      Shuffle(1, 0);
    }
  };
  EXPECT_DEATH(LaunchNamed("test", kernel, {1}, 32, 0, nullptr, {}), "different places");
}

TEST_P(CudaEmulationDeathTest, MisalignedCopiesAreReported) {
  std::vector<float> from(16);
  Output out;
  out.from = from.data();
  void (*kernel)(Output) = [](Output args) { CopyAsync16(SharedMemory<float>() + 1, args.from); };
  EXPECT_DEATH(LaunchNamed("test", kernel, {1}, 32, 64, nullptr, out), "misaligned");
}

TEST_P(CudaEmulationDeathTest, MoreSharedMemoryThanASmallGpuHasIsReported) {
  void (*kernel)(Output) = [](Output) {};
  EXPECT_DEATH(LaunchNamed("test", kernel, {1}, 32, 100 << 10, nullptr, {}), "no GPU would start");
}

}  // namespace
}  // namespace sluice::cuda_emulation
