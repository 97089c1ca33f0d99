// The table `amx` in the whole forward pass, its instructions emulated: the logits of `avx512` to
// the bit, on any number of threads, each with its own registers.
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/amx_support.h"
#include "kernels/cpu_features.h"
#include "kernels/select.h"
#include "loaders/architecture.h"
#include "offload/weight_store.h"
#include "runtime/forward.h"
#include "tests/support/amx_emulation/emulated_tiles.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

// Bits of the logits of a sequence's tokens, `chunk` of them in a pass.
std::vector<uint32_t> Logits(const std::string& path, const OpTable& table,
                             const std::vector<int32_t>& tokens, int64_t chunk, ThreadTeam* team,
                             bool bf16_prompts) {
  const std::shared_ptr<const SluiceFile> file = *SluiceFile::Open(path);
  const ModelDescription description = *DescribeModel(file->config());
  const std::unique_ptr<WeightStore> store = *OpenMappedStore(file);
  const auto total = static_cast<int64_t>(tokens.size());
  const std::unique_ptr<KvCache> cache =
      *KvCache::Create(description.layer_states, KvType::kF16, total / 16 + 1);
  BlockTable blocks;
  EXPECT_TRUE(cache->Reserve(&blocks, total, 0).ok());
  const std::unique_ptr<Forward> forward =
      *Forward::Create(file->config(), description, store.get(), &table, cache.get(), team, chunk,
                       total, bf16_prompts);
  std::vector<uint32_t> bits;
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t count = std::min(chunk, total - begin);
    Batch batch;
    for (int64_t i = begin; i < begin + count; ++i) {
      batch.ids.push_back(tokens[static_cast<size_t>(i)]);
      batch.positions.push_back(static_cast<int32_t>(i));
      batch.slots.push_back(KvCache::Slot(blocks, i));
      batch.lengths.push_back(i + 1);
      batch.block_tables.push_back(blocks.blocks.data());
      batch.wanted.push_back(i - begin);
    }
    EXPECT_TRUE(forward->Run(batch, nullptr).ok());
    std::vector<float> logits(static_cast<size_t>(kLogitRows * file->config().vocab_size));
    for (int64_t first = 0; first < count; first += kLogitRows) {
      const int64_t rows = std::min(kLogitRows, count - first);
      EXPECT_TRUE(forward->Logits(first, rows, logits.data()).ok());
      for (int64_t i = 0; i < rows * file->config().vocab_size; ++i) {
        bits.push_back(std::bit_cast<uint32_t>(logits[static_cast<size_t>(i)]));
      }
    }
  }
  return bits;
}

struct Case {
  const char* model;
  const char* quantization;
};

std::string NameOf(const Case& c) {
  std::string name = std::string(c.model) + "_" + c.quantization;
  for (char& character : name) {
    if (character == '/' || character == ':') character = '_';
  }
  return name;
}
void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

class AmxForward : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!CpuHasAvx512()) GTEST_SKIP() << "no AVX-512";
    const testing::GoldenModel model = testing::LoadGolden(GetParam().model);
    path_ = testing::ConvertGolden(model, GetParam().quantization, folder_ / "m.sluice");
    tokens_ = model.tokens[0];
    tokens_.resize(50);
  }

  ScratchDirectory folder_;
  std::string path_;
  std::vector<int32_t> tokens_;
};

TEST_P(AmxForward, LogitsAreThoseOfAvx512OnAnyNumberOfThreads) {
  ThreadTeam one(1);
  const std::vector<uint32_t> expected = Logits(path_, kAvx512Table, tokens_, 50, &one, false);
  const int64_t products = test::EmulatedTiles::products();
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadTeam team(threads);
    AmxOfThisMachine();  // a team may be older than the permission
    EXPECT_TRUE(Logits(path_, test::EmulatedAmxTable(), tokens_, 50, &team, false) == expected)
        << threads << " threads";
    EXPECT_TRUE(Logits(path_, test::EmulatedAmxTable(), tokens_, 13, &team, false) == expected)
        << threads << " threads, chunks of 13";
  }
  // Float weights are multiplied by avx512's functions.
  const bool integers = std::string_view(GetParam().model) != "gguf/bf16";
  EXPECT_EQ(test::EmulatedTiles::products() > products, integers);
  EXPECT_FALSE(test::EmulatedTiles::configured());
}

TEST_P(AmxForward, LogitsInBf16AreTheSameOnAnyNumberOfThreadsAndInAnyChunks) {
  if (!CpuHasAvx512Bf16()) GTEST_SKIP() << "no AVX-512 with BF16";
  ThreadTeam one(1);
  const OpTable& table = test::EmulatedAmxTable();
  const std::vector<uint32_t> expected = Logits(path_, table, tokens_, 50, &one, true);
  EXPECT_FALSE(Logits(path_, table, tokens_, 50, &one, false) == expected);
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadTeam team(threads);
    const int64_t chunk = 1 + 7 * threads;
    EXPECT_TRUE(Logits(path_, table, tokens_, chunk, &team, true) == expected)
        << threads << " threads, chunks of " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, AmxForward,
                         ::testing::Values(Case{"gqa", "int4:g32"}, Case{"gqa", "mixed"},
                                           Case{"gguf/kquants", "keep"}, Case{"gguf/bf16", "keep"}),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace sluice
