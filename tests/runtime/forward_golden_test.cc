// The whole path, from a checkpoint to logits and tokens, against transformers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "formats/sluice_file.h"
#include "loaders/architecture.h"
#include "sluice/engine.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using testing::GoldenModel;

// Logits of ref with a float32 cache, against float32 by transformers.
constexpr double kRefTolerance = 2e-4;

// The sequences of the goldens: what rotations that depend on the context were computed for.
constexpr int64_t kContext = 96;

std::unique_ptr<Engine> OpenEngine(const std::string& path, const std::string& isa,
                                   KvCacheType kv_cache_type = KvCacheType::kF32) {
  EngineOptions options;
  options.context_tokens = kContext;
  options.model_path = path;
  options.isa = isa;
  options.kv_cache_type = kv_cache_type;
  options.threads = 2;
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

class ForwardGolden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    model_ = testing::LoadGolden(GetParam());
    path_ = testing::ConvertGolden(model_, "keep", (folder_ / "model.sluice"));
  }

  ScratchDirectory folder_;
  GoldenModel model_;
  std::string path_;
};

TEST_P(ForwardGolden, LogitsOfRefAreThoseOfTransformers) {
  std::unique_ptr<Engine> engine = OpenEngine(path_, "ref");
  ASSERT_NE(engine, nullptr);
  ASSERT_EQ(engine->info().vocab_size, model_.vocab);
  double worst = 0;
  int64_t compared = 0;
  const Status status = engine->Evaluate(model_.tokens, [&](int64_t sequence, int64_t position,
                                                            std::span<const float> logits) {
    const auto index =
        static_cast<size_t>(sequence * static_cast<int64_t>(model_.tokens[0].size()) + position);
    double sum = 0;
    int64_t best = 0;
    for (int64_t i = 0; i < model_.vocab; ++i) {
      sum += std::exp(static_cast<double>(logits[static_cast<size_t>(i)]));
      if (logits[static_cast<size_t>(i)] > logits[static_cast<size_t>(best)]) best = i;
    }
    EXPECT_EQ(best, model_.argmax[index]) << "at " << sequence << ", " << position;
    EXPECT_NEAR(std::log(sum), model_.logsumexp[index], kRefTolerance);
    const std::span<const float> expected = model_.ExpectedLogits(sequence, position);
    for (size_t i = 0; i < expected.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(logits[i]) - expected[i]);
      if (!(difference <= worst)) worst = difference;
      ++compared;
    }
    return true;
  });
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(compared, static_cast<int64_t>(model_.logits.size()));
  EXPECT_TRUE(worst <= kRefTolerance) << "largest difference " << worst;
  RecordProperty("largest_difference", std::to_string(worst));
}

// GGUF files have no greedy results of their own.
class GreedyGolden : public ForwardGolden {};

TEST_P(GreedyGolden, TokensOfRefAreThoseOfTransformers) {
  std::unique_ptr<Engine> engine = OpenEngine(path_, "ref");
  ASSERT_NE(engine, nullptr);
  if (model_.greedy.empty()) {
    GTEST_SKIP() << "transformers does not rotate the keys in its cache anew as the sequence grows";
  }
  for (const testing::GoldenGreedy& golden : model_.greedy) {
    Request request;
    request.prompt = golden.prompt;
    request.sampling.temperature = 0;
    request.max_new_tokens = static_cast<int64_t>(golden.next.size());
    request.ignore_eos = true;
    Result<Completion> completion = engine->Generate(request, nullptr);
    ASSERT_TRUE(completion.ok()) << completion.status().message();
    EXPECT_THAT(completion->tokens, ::testing::ElementsAreArray(golden.next));
    EXPECT_EQ(completion->finish_reason, FinishReason::kLength);
  }
}

TEST(ArchitectureGoldens, ThereIsOneForEachArchitecture) {
  std::set<std::string> covered;
  ScratchDirectory folder;
  for (const auto& names : {testing::ArchitectureGoldens(), {"gqa"}}) {
    for (const std::string& name : names) {
      const std::string path =
          testing::ConvertGolden(testing::LoadGolden(name), "keep", folder / "model.sluice");
      Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(path);
      ASSERT_TRUE(file.ok()) << file.status().message();
      covered.insert((*file)->config().architecture);
    }
  }
  // Those that llama.cpp's converter knows are there as GGUF too: tests are made from the files.
  EXPECT_EQ(testing::ArchitectureGgufGoldens().size(), 20u);
  EXPECT_EQ(testing::ArchitectureGoldens().size(), 29u);
  for (const std::string_view name : SupportedArchitectures()) {
    EXPECT_EQ(covered.count(std::string(name)), 1u) << name;
  }
}

std::string TestName(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (const char c : {'/', '.'}) std::replace(name.begin(), name.end(), c, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(HuggingFace, ForwardGolden,
                         ::testing::ValuesIn(testing::HuggingFaceGoldens()), TestName);
INSTANTIATE_TEST_SUITE_P(Gguf, ForwardGolden, ::testing::ValuesIn(testing::GgufGoldens()),
                         TestName);

INSTANTIATE_TEST_SUITE_P(Architectures, ForwardGolden,
                         ::testing::ValuesIn(testing::ArchitectureGoldens()), TestName);
INSTANTIATE_TEST_SUITE_P(ArchitecturesInGguf, ForwardGolden,
                         ::testing::ValuesIn(testing::ArchitectureGgufGoldens()), TestName);
INSTANTIATE_TEST_SUITE_P(Architectures, GreedyGolden,
                         ::testing::ValuesIn(testing::ArchitectureGoldens()), TestName);
INSTANTIATE_TEST_SUITE_P(HuggingFace, GreedyGolden,
                         ::testing::ValuesIn(testing::HuggingFaceGoldens()), TestName);

}  // namespace
}  // namespace sluice
