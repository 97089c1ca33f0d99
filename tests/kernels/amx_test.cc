// AMX where there is none: what its emulation computes and refuses, what the trial expects, and the
// probe with every answer that a machine can give.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "formats/half.h"
#include "kernels/amx_support.h"
#include "kernels/cpu/amx/trial.h"
#include "kernels/cpu_features.h"
#include "kernels/select.h"
#include "tests/support/amx_emulation/emulated_tiles.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/numeric_contract.h"

namespace sluice {
namespace {

using test::EmulatedTiles;

TileConfig Shapes(int k_bytes) {
  TileConfig config;
  config.Set(0, 16, k_bytes);
  config.Set(1, k_bytes / 4, 64);
  config.Set(2, 16, 64);
  return config;
}

// One product by hand: rows 1 and 2 of a with columns 0 and 15 of b.
TEST(AmxEmulation, BytesAreMultipliedAsTheManualSays) {
  int8_t a[16][64] = {};
  uint8_t b[16][64] = {};
  a[1][4] = -128;  // k = 1, i = 0
  a[2][63] = 127;  // k = 15, i = 3
  b[1][0] = 255;
  b[15][63] = 128;
  int32_t sums[16][16];
  for (const bool signed_b : {true, false}) {
    const ConfiguredTiles<EmulatedTiles> shapes(Shapes(64));
    EmulatedTiles::Zero<2>();
    EmulatedTiles::Load<0>(a, 64);
    EmulatedTiles::Load<1>(b, 64);
    if (signed_b) {
      EmulatedTiles::AddSignedSigned<2, 0, 1>();
    } else {
      EmulatedTiles::AddSignedUnsigned<2, 0, 1>();
    }
    EmulatedTiles::Store<2>(sums, 64);
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        int32_t expected = 0;
        if (m == 1 && n == 0) expected = -128 * (signed_b ? -1 : 255);
        if (m == 2 && n == 15) expected = 127 * (signed_b ? -128 : 128);
        EXPECT_EQ(sums[m][n], expected) << m << " " << n;
      }
    }
  }
}

TEST(AmxEmulation, Bf16PairsAreMultipliedAsTheManualSays) {
  uint16_t a[16][32] = {};
  uint16_t b[16][32] = {};
  a[3][2] = FloatToBf16(1.5f);  // k = 1, i = 0
  a[3][31] = FloatToBf16(-2.0f);
  b[1][10] = FloatToBf16(4.0f);  // column 5
  b[15][11] = FloatToBf16(0.25f);
  a[4][0] = 1;  // subnormal
  b[0][10] = FloatToBf16(1e38f);
  float sums[16][16] = {};
  sums[3][5] = 100;
  const ConfiguredTiles<EmulatedTiles> shapes(Shapes(64));
  EmulatedTiles::Load<2>(sums, 64);
  EmulatedTiles::Load<0>(a, 64);
  EmulatedTiles::Load<1>(b, 64);
  EmulatedTiles::AddBf16<2, 0, 1>();
  EmulatedTiles::Store<2>(sums, 64);
  EXPECT_EQ(sums[3][5], 100 + 1.5f * 4 - 2 * 0.25f);
  EXPECT_EQ(sums[4][5], 0);
}

TEST(AmxEmulation, RowsThatALoadDoesNotFillAreZero) {
  std::vector<int8_t> bytes(3 * 16 - 4, 9);  // three rows of 12 bytes, 16 apart
  TileConfig config;
  config.Set(5, 3, 12);
  const ConfiguredTiles<EmulatedTiles> shapes(config);
  EmulatedTiles::Load<5>(bytes.data(), 16);
  int8_t out[3][12];
  EmulatedTiles::Store<5>(out, 12);
  for (const auto& row : out) {
    for (int8_t byte : row) EXPECT_EQ(byte, 9);
  }
}

TEST(AmxEmulationDeathTest, MisuseEndsTheProgram) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TileConfig config;
  int8_t bytes[16][64] = {};
  EXPECT_DEATH(EmulatedTiles::Zero<0>(), "no configuration");
  EXPECT_DEATH(EmulatedTiles::Load<0>(bytes, 64), "no configuration");
  config.Set(0, 17, 64);
  EXPECT_DEATH(EmulatedTiles::Configure(config), "more than 16 rows");
  config.Set(0, 16, 65);
  EXPECT_DEATH(EmulatedTiles::Configure(config), "more than 64 bytes");
  config.Set(0, 16, 0);
  EXPECT_DEATH(EmulatedTiles::Configure(config), "rows without bytes");
  config.Set(0, 0, 0);
  config.Set(8, 1, 64);
  EXPECT_DEATH(EmulatedTiles::Configure(config), "eight registers");
  config = Shapes(64);
  config.palette = 0;
  EXPECT_DEATH(EmulatedTiles::Configure(config), "palette");
  config = Shapes(64);
  config.reserved[13] = 1;
  EXPECT_DEATH(EmulatedTiles::Configure(config), "reserved");
  EXPECT_DEATH(
      {
        EmulatedTiles::Configure(Shapes(64));
        EmulatedTiles::Release();
        EmulatedTiles::Zero<0>();
      },
      "no configuration");
  EXPECT_DEATH(
      {
        EmulatedTiles::Configure(Shapes(64));
        EmulatedTiles::Zero<3>();
      },
      "without a shape");
  EXPECT_DEATH(
      {
        config = Shapes(64);
        config.Set(1, 8, 64);
        EmulatedTiles::Configure(config);
        (EmulatedTiles::AddSignedSigned<2, 0, 1>());
      },
      "columns are not b's rows");
  EXPECT_DEATH(
      {
        config = Shapes(64);
        config.Set(0, 8, 64);
        EmulatedTiles::Configure(config);
        (EmulatedTiles::AddSignedUnsigned<2, 0, 1>());
      },
      "different rows");
  EXPECT_DEATH(
      {
        EmulatedTiles::Configure(Shapes(64));
        (EmulatedTiles::AddSignedSigned<2, 2, 1>());
      },
      "three registers");
}

TEST(AmxEmulation, AThreadHasItsOwnConfiguration) {
  const ConfiguredTiles<EmulatedTiles> shapes(Shapes(64));
  bool other = true;
  std::thread([&] { other = EmulatedTiles::configured(); }).join();
  EXPECT_FALSE(other);
  EXPECT_TRUE(EmulatedTiles::configured());
}

TEST(AmxTrial, SucceedsWithTheEmulation) {
  EXPECT_TRUE(TryTilesOf<EmulatedTiles>());
  EXPECT_FALSE(EmulatedTiles::configured());
}

// Instructions that take the other sign for granted.
struct MistakenTiles : EmulatedTiles {
  template <int sums, int a, int b>
  static void AddSignedUnsigned() {
    AddSignedSigned<sums, a, b>();
  }
};

// A product of bf16 that does nothing.
struct IdleTiles : EmulatedTiles {
  template <int sums, int a, int b>
  static void AddBf16() {}
};

TEST(AmxTrial, SeesAWrongResult) {
  EXPECT_FALSE(TryTilesOf<MistakenTiles>());
  EXPECT_FALSE(TryTilesOf<IdleTiles>());
}

bool Yes() { return true; }
bool No() { return false; }
bool NeverAsked() {
  ADD_FAILURE();
  return true;
}

AmxProbe Machine(bool (*trial)()) { return {Yes, Yes, Yes, trial, 30'000}; }

TEST(AmxProbe, NothingIsAskedOfAProcessorWithoutIt) {
  EXPECT_EQ(ProbeAmx({No, NeverAsked, NeverAsked, NeverAsked, 1}), AmxState::kAbsent);
}

TEST(AmxProbe, AdvertisedButNotSavedByTheSystem) {
  EXPECT_EQ(ProbeAmx({Yes, No, NeverAsked, NeverAsked, 1}), AmxState::kNotEnabled);
}

TEST(AmxProbe, AdvertisedButPermissionRefused) {
  EXPECT_EQ(ProbeAmx({Yes, Yes, No, NeverAsked, 30'000}), AmxState::kPermissionRefused);
}

// As by a sandbox that allows no such system call.
TEST(AmxProbe, AdvertisedButAskingForThePermissionKills) {
  const auto killed = [] { return raise(SIGSYS) == 0; };
  EXPECT_EQ(ProbeAmx({Yes, Yes, killed, NeverAsked, 30'000}), AmxState::kCrashed);
}

TEST(AmxProbe, AdvertisedAndRightButRefusedToTheProcessItself) {
  static const pid_t process = getpid();
  const auto only_to_children = [] { return getpid() != process; };
  EXPECT_EQ(ProbeAmx({Yes, Yes, only_to_children, Yes, 30'000}), AmxState::kPermissionRefused);
}

TEST(AmxProbe, WorksInAProgramWithThreads) {
  std::atomic<bool> end = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!end) delete[] new char[1000];  // someone holds the allocator's lock, as a rule
    });
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(ProbeAmx(Machine(TryTilesOf<EmulatedTiles>)), AmxState::kUsable);
  }
  end = true;
  for (std::thread& thread : threads) thread.join();
}

TEST(AmxProbe, AdvertisedAndRight) {
  EXPECT_EQ(ProbeAmx(Machine(TryTilesOf<EmulatedTiles>)), AmxState::kUsable);
}

TEST(AmxProbe, AdvertisedButWrong) {
  EXPECT_EQ(ProbeAmx(Machine(TryTilesOf<MistakenTiles>)), AmxState::kWrongResult);
}

TEST(AmxProbe, AdvertisedButTheTrialIsAnIllegalInstruction) {
  const auto illegal = [] {
    __asm__ volatile("ud2");
    return true;
  };
  EXPECT_EQ(ProbeAmx(Machine(illegal)), AmxState::kCrashed);
  const auto refused = [] { return raise(SIGSYS) == 0; };
  EXPECT_EQ(ProbeAmx(Machine(refused)), AmxState::kCrashed);
}

TEST(AmxProbe, AHandlerOfTheProgramDoesNotHearOfTheTrial) {
  struct sigaction before;
  struct sigaction action = {};
  action.sa_handler = [](int) { _exit(0); };
  sigaction(SIGILL, &action, &before);
  const auto illegal = [] {
    __asm__ volatile("ud2");
    return true;
  };
  EXPECT_EQ(ProbeAmx(Machine(illegal)), AmxState::kCrashed);
  sigaction(SIGILL, &before, nullptr);
}

TEST(AmxProbe, AdvertisedButTheTrialDoesNotEnd) {
  AmxProbe probe = Machine([] {
    while (true) pause();
    return true;
  });
  probe.time_limit_ms = 50;
  EXPECT_EQ(ProbeAmx(probe), AmxState::kTimedOut);
}

TEST(AmxProbe, LeavesNoChildBehind) {
  EXPECT_EQ(ProbeAmx(Machine(Yes)), AmxState::kUsable);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(AmxProbe, WorksInAProgramThatIgnoresItsChildren) {
  struct sigaction before;
  struct sigaction action = {};
  action.sa_handler = SIG_IGN;
  sigaction(SIGCHLD, &action, &before);
  EXPECT_EQ(ProbeAmx(Machine(Yes)), AmxState::kUsable);
  EXPECT_EQ(ProbeAmx(Machine([] { return raise(SIGILL) == 0; })), AmxState::kCrashed);
  sigaction(SIGCHLD, &before, nullptr);
}

TEST(AmxTable, IsThereWhereItIsUsableAndSaysWhyWhereNot) {
  const AmxState state = AmxOfThisMachine();
  const Result<const OpTable*> table = SelectTable("amx");
  if (state == AmxState::kUsable) {
    ASSERT_TRUE(table.ok());
    EXPECT_EQ(AvailableTables().back(), *table);
    EXPECT_EQ(FallbackReason(), "");
    return;
  }
  EXPECT_EQ(table.status().code(), ErrorCode::kUnsupported);
  EXPECT_NE(table.status().message().find(Describe(state)), std::string::npos);
  EXPECT_EQ(FallbackReason().empty(), state == AmxState::kAbsent);
}

TEST(AmxTable, TheSystemLetsNobodyUseWhatTheProcessorDoesNotHave) {
  if (AmxOfThisMachine() == AmxState::kUsable) {
    EXPECT_TRUE(CpuHasAmx());
    EXPECT_TRUE(OsSavesAmx());
    EXPECT_TRUE(CpuHasAvx512());
  }
}

struct Product {
  test::WeightMatrix matrix;
  test::ActivationBuffer x;
  int64_t rows, tokens;
};

Product MakeProduct(const WeightType& type, int64_t rows, int64_t cols, int64_t tokens) {
  std::mt19937 random(3);
  cols = test::ColsFor(type, cols);
  Product p{test::RandomMatrix(type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), 16,
                               random),
            test::ActivationBuffer(tokens, cols, ActivationGroup(type)), rows, tokens};
  const std::vector<float> x = test::RandomFloats(static_cast<size_t>(tokens * cols), random);
  kAvx512Table.quantize({x.data(), cols, cols, p.x.view(), 0, tokens}, nullptr);
  return p;
}

std::vector<float> Multiply(void (*matmul)(const MatmulArgs&, CUstream_st*), Product* p) {
  std::vector<float> y(static_cast<size_t>(p->tokens * p->rows));
  const QuantizedActivations xq = p->x.view();
  MatmulArgs args{};
  args.layout = &p->matrix.layout;
  args.tiles = p->matrix.tiles.data();
  args.num_tiles = static_cast<int64_t>(p->matrix.layout.num_tiles);
  args.rows = p->rows;
  args.xq = &xq;
  args.tokens = p->tokens;
  args.y = y.data();
  args.y_stride = p->rows;
  args.block_end = static_cast<int64_t>(p->matrix.layout.num_blocks());
  matmul(args, nullptr);
  return y;
}

// As many instructions as there are registers of weights and of tokens, in one configuration.
TEST(AmxMatmul, AllProductsAreTheTiles) {
  if (!SelectTable("avx512").ok()) GTEST_SKIP() << "no AVX-512";
  for (const WeightType& type : test::AllWeightTypes()) {
    if (!type.quantized()) continue;
    Product p = MakeProduct(type, 48, 512, 40);
    const int64_t products = EmulatedTiles::products();
    const int64_t configurations = EmulatedTiles::configurations();
    Multiply(test::MatmulEmulatedAmx, &p);
    EXPECT_EQ(EmulatedTiles::configurations() - configurations, 1);
    // 512 channels, 64 or a group at a time.
    const int64_t step = std::min<int64_t>(p.x.group_size, 64);
    EXPECT_EQ(EmulatedTiles::products() - products, 3 * 3 * 512 / step) << WeightTypeName(type);
  }
}

// More rows, channels and tokens than the kernel takes at a time; the other sizes are
// matmul_test.cc's.
TEST(AmxMatmul, MoreThanFitsTheBuffersAgreesWithAvx512ToTheBit) {
  if (!SelectTable("avx512").ok()) GTEST_SKIP() << "no AVX-512";
  for (const WeightType& type : test::AllWeightTypes()) {
    if (!type.quantized()) continue;
    Product p = MakeProduct(type, 16 * 16 + 5, 1024 + 32, 65);
    const std::vector<float> y = Multiply(test::MatmulEmulatedAmx, &p);
    const std::vector<float> expected = Multiply(kAvx512Table.matmul, &p);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_TRUE(test::SameBits(y[i], expected[i])) << WeightTypeName(type) << " " << i;
    }
  }
}

}  // namespace
}  // namespace sluice
