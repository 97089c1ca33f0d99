// A thousand greedy completions under random loads (200 with a sanitizer): each prompt has one
// answer, whatever runs beside it, on however many threads, in whatever chunks its prompt is taken.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>

#include "kernels/cpu_features.h"
#include "kernels/select.h"
#include "runtime/engine_impl.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"
#include "tests/support/golden_model.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

constexpr int kCompletions = test::kSanitized ? 200 : 1000;
constexpr int kEmulatedCompletions = 200;  // an emulated product takes long
constexpr int kCompletionsPerEngine = 40;
constexpr size_t kPrompts = 24;

class GreedyCompletions {
 public:
  GreedyCompletions(std::string path, std::string isa, PrefillType prefill, int64_t vocab_size,
                    TableSelector select_table)
      : path_(std::move(path)),
        isa_(std::move(isa)),
        prefill_(prefill),
        select_table_(select_table) {
    for (size_t i = 0; i < kPrompts; ++i) {
      std::vector<int32_t> prompt(1 + random_() % 70);
      for (int32_t& id : prompt) id = static_cast<int32_t>(random_() % vocab_size);
      // Half of them begin alike, as chats do.
      if (i % 2 == 1) {
        std::copy_n(prompts_[i - 1].begin(), std::min(prompt.size(), prompts_[i - 1].size()) / 2,
                    prompt.begin());
      }
      prompts_.push_back(std::move(prompt));
    }
  }

  // Some completions on an engine of random size; they come while others run.
  void RunEngine(int completions) {
    EngineOptions options;
    options.model_path = path_;
    options.isa = isa_;
    options.prefill = prefill_;
    options.context_tokens = 128;
    options.threads = 1 + static_cast<int>(random_() % 4);
    options.max_sequences = 1 + static_cast<int64_t>(random_() % 12);
    options.max_batch_tokens = options.max_sequences + static_cast<int64_t>(random_() % 90);
    Result<std::unique_ptr<Engine>> engine = EngineImpl::Open(options, OpenFirstGpu, select_table_);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    ASSERT_EQ((*engine)->info().isa, (*select_table_(isa_))->name);
    std::map<uint64_t, size_t> prompt_of;
    for (int i = 0; i < completions; ++i) {
      const size_t prompt = random_() % kPrompts;
      Request request;
      request.prompt = prompts_[prompt];
      request.sampling.temperature = 0;
      request.max_new_tokens = 16;
      request.ignore_eos = true;
      request.keep_cache = random_() % 4 == 0;
      Result<uint64_t> id = (*engine)->Submit(request, nullptr);
      ASSERT_TRUE(id.ok()) << id.status().message();
      prompt_of[*id] = prompt;
      for (size_t steps = random_() % 8; steps > 0; --steps) ASSERT_TRUE((*engine)->Step().ok());
    }
    for (bool more = true; more;) {
      Result<bool> step = (*engine)->Step();
      ASSERT_TRUE(step.ok()) << step.status().message();
      more = *step;
    }
    for (const auto& [id, prompt] : prompt_of) {
      std::unique_ptr<Completion> completion = (*engine)->TakeCompletion(id);
      ASSERT_NE(completion, nullptr);
      ASSERT_EQ(completion->tokens.size(), 16u);
      ++outputs_[prompt][completion->tokens];
    }
  }

  void ExpectOneOutputOfEachPrompt(int expected_completions) const {
    int completions = 0;
    for (const auto& [prompt, outputs] : outputs_) {
      EXPECT_EQ(outputs.size(), 1u) << "prompt " << prompt << " has different answers";
      for (const auto& [tokens, count] : outputs) completions += count;
    }
    EXPECT_EQ(completions, expected_completions);
    EXPECT_EQ(outputs_.size(), kPrompts);
  }

 private:
  std::string path_, isa_;
  PrefillType prefill_;
  TableSelector select_table_;
  std::mt19937 random_{7};
  std::vector<std::vector<int32_t>> prompts_;
  std::map<size_t, std::map<std::vector<int32_t>, int>> outputs_;
};

void RunAll(const std::string& path, const std::string& isa, int64_t vocab_size,
            PrefillType prefill = PrefillType::kInt8, int count = kCompletions,
            TableSelector select_table = SelectTable) {
  GreedyCompletions completions(path, isa, prefill, vocab_size, select_table);
  for (int done = 0; done < count; done += kCompletionsPerEngine) {
    ASSERT_NO_FATAL_FAILURE(completions.RunEngine(kCompletionsPerEngine));
  }
  completions.ExpectOneOutputOfEachPrompt(count);
}

TEST(GreedyCompletions, UnderRandomLoadsEachPromptHasOneOutputOnEveryTable) {
  ScratchDirectory folder;
  const testing::GoldenModel model = testing::LoadGolden("gqa");
  const std::string path = testing::ConvertGolden(model, "int4:g32", folder / "m.sluice");
  for (const OpTable* table : AvailableTables()) {
    SCOPED_TRACE(table->name);
    ASSERT_NO_FATAL_FAILURE(RunAll(path, table->name, model.vocab));
    if (!CheckBf16(*table).ok()) continue;
    SCOPED_TRACE("prefill in bf16");
    ASSERT_NO_FATAL_FAILURE(RunAll(path, table->name, model.vocab, PrefillType::kBf16));
  }
}

TEST(GreedyCompletions, OnTheEmulatedTableAmxToo) {
  if (!CpuHasAvx512()) GTEST_SKIP() << "no AVX-512";
  ScratchDirectory folder;
  const testing::GoldenModel model = testing::LoadGolden("gqa");
  const std::string path = testing::ConvertGolden(model, "int4:g32", folder / "m.sluice");
  const TableSelector emulated = [](std::string_view) -> Result<const OpTable*> {
    return &test::EmulatedAmxTable();
  };
  for (const PrefillType prefill : {PrefillType::kInt8, PrefillType::kBf16}) {
    SCOPED_TRACE(prefill == PrefillType::kBf16 ? "prefill in bf16" : "prefill in int8");
    if (prefill == PrefillType::kBf16 && !CpuHasAvx512Bf16()) continue;
    ASSERT_NO_FATAL_FAILURE(
        RunAll(path, "amx", model.vocab, prefill, kEmulatedCompletions, emulated));
  }
}

// The same with a model of the caller's: SLUICE_TEST_MODEL is a .sluice file.
TEST(GreedyCompletions, OfAModelGivenByHand) {
  const char* path = std::getenv("SLUICE_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "SLUICE_TEST_MODEL is not set";
  const OpTable& fastest = *AvailableTables().back();
  ASSERT_NO_FATAL_FAILURE(RunAll(path, fastest.name, 1000));
  if (CheckBf16(fastest).ok()) RunAll(path, fastest.name, 1000, PrefillType::kBf16);
}

}  // namespace
}  // namespace sluice
