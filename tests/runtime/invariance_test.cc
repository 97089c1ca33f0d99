// A token's result does not depend on what is beside it: the numeric contract of ARCHITECTURE.md,
// through the whole engine, to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <ostream>

#include "kernels/select.h"
#include "offload/storage.h"
#include "sluice/engine.h"
#include "tests/support/golden_model.h"
#include "tests/support/sanitized.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using testing::GoldenModel;
using ::testing::HasSubstr;

EngineOptions OptionsFor(const std::string& path, const std::string& isa) {
  EngineOptions options;
  options.model_path = path;
  options.isa = isa;
  options.threads = 2;
  options.context_tokens = 128;
  return options;
}

std::unique_ptr<Engine> Open(const EngineOptions& options) {
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

std::vector<uint32_t> AllLogits(const EngineOptions& options,
                                const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<uint32_t> bits;
  std::unique_ptr<Engine> engine = Open(options);
  if (engine == nullptr) return bits;
  const Status status =
      engine->Evaluate(sequences, [&](int64_t, int64_t, std::span<const float> logits) {
        const size_t begin = bits.size();
        bits.resize(begin + logits.size());
        std::memcpy(bits.data() + begin, logits.data(), logits.size_bytes());
        return true;
      });
  EXPECT_TRUE(status.ok()) << status.message();
  return bits;
}

// The same from first_position on, made of parts that must come in order and be whole.
std::vector<uint32_t> LogitsOfParts(Engine* engine,
                                    const std::vector<std::vector<int32_t>>& sequences,
                                    size_t vocab, size_t first_position = 0) {
  std::vector<uint32_t> bits;
  for (const std::vector<int32_t>& sequence : sequences) {
    const size_t begin = bits.size();
    const size_t positions = sequence.size() - std::min(first_position, sequence.size());
    bits.resize(begin + positions * vocab);
    std::vector<size_t> come(sequence.size());  // ids of each position
    std::atomic<int> out_of_order = 0;
    const Status status = engine->EvaluateInParts(
        sequence, static_cast<int64_t>(first_position),
        [&](int64_t position, int64_t first_id, std::span<const float> logits) {
          const auto place = static_cast<size_t>(position);
          if (place < first_position || come[place] != static_cast<size_t>(first_id) ||
              come[place] + logits.size() > vocab) {
            ++out_of_order;
            return false;
          }
          std::memcpy(&bits[begin + (place - first_position) * vocab + come[place]], logits.data(),
                      logits.size_bytes());
          come[place] += logits.size();
          return true;
        });
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(out_of_order, 0);
    for (size_t i = first_position; i < sequence.size(); ++i) EXPECT_EQ(come[i], vocab) << i;
  }
  return bits;
}

struct Case {
  std::string model, quantization, isa;
  PrefillType prefill = PrefillType::kInt8;
};

std::string NameOf(const Case& c) {
  std::string name = c.model + "_" + c.quantization + "_" + c.isa +
                     (c.prefill == PrefillType::kBf16 ? "_bf16" : "");
  for (const char separator : {':', '/'}) std::replace(name.begin(), name.end(), separator, '_');
  return name;
}
void PrintTo(const Case& c, std::ostream* out) { *out << NameOf(c); }

// With a sanitizer the fastest table sees all models, each of the others one.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const OpTable* table : AvailableTables()) {
    if (test::kSanitized && table != AvailableTables().back()) {
      cases.push_back({"gqa", "int4:g32", table->name});
      continue;
    }
    for (const char* model : {"gqa", "bias_linear"}) {
      for (const char* quantization : {"keep", "int4:g32", "mixed", "int8"}) {
        cases.push_back({model, quantization, table->name});
      }
    }
    // Windows, soft caps, norms of outputs; learned positions and LayerNorm; parallel blocks.
    for (const char* model : {"gemma2", "gemma3", "opt", "falcon_two_norms"}) {
      cases.push_back({std::string("architectures/") + model, "int4:g32", table->name});
    }
    if (!CheckBf16(*table).ok()) continue;
    for (const char* quantization : {"keep", "int4:g32", "mixed"}) {
      cases.push_back({"gqa", quantization, table->name, PrefillType::kBf16});
    }
  }
  return cases;
}

class Invariance : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    model_ = testing::LoadGolden(GetParam().model);
    path_ = testing::ConvertGolden(model_, GetParam().quantization, (folder_ / "m.sluice"));
    options_ = OptionsFor(path_, GetParam().isa);
    options_.prefill = GetParam().prefill;
  }

  Request GreedyRequest(size_t prompt) const {
    Request request;
    request.prompt = model_.greedy[prompt].prompt;
    request.sampling.temperature = 0;
    request.max_new_tokens = 24;
    request.ignore_eos = true;
    return request;
  }

  ScratchDirectory folder_;
  GoldenModel model_;
  std::string path_;
  EngineOptions options_;
};

TEST_P(Invariance, LogitsAreTheSameInAnyChunkingAndOnAnyNumberOfThreads) {
  const std::vector<uint32_t> whole = AllLogits(options_, model_.tokens);
  ASSERT_EQ(whole.size(), 2 * 96 * static_cast<size_t>(model_.vocab));
  for (const int64_t chunk : {1, 2, 5, 16, 17, 95}) {
    EngineOptions options = options_;
    options.max_batch_tokens = chunk;
    options.threads = 1 + static_cast<int>(chunk % 3);
    EXPECT_TRUE(AllLogits(options, model_.tokens) == whole) << "chunks of " << chunk;
  }
}

TEST_P(Invariance, LogitsInPartsAreThoseOfWholeRows) {
  const std::vector<uint32_t> whole = AllLogits(options_, model_.tokens);
  const auto vocab = static_cast<size_t>(model_.vocab);
  for (const char* place : {"all=ram", "all=disk"}) {
    for (const int64_t chunk : {1, 29, 96}) {
      EngineOptions options = options_;
      options.place = place;
      options.max_batch_tokens = chunk;
      options.threads = chunk == 29 ? 3 : 1;
      const std::unique_ptr<Engine> engine = Open(options);
      ASSERT_NE(engine, nullptr);
      EXPECT_TRUE(LogitsOfParts(engine.get(), model_.tokens, vocab) == whole) << place << chunk;
    }
  }
  // The last 37 of 96 positions; and none.
  const std::unique_ptr<Engine> engine = Open(options_);
  ASSERT_NE(engine, nullptr);
  const std::vector<uint32_t> tail =
      LogitsOfParts(engine.get(), {model_.tokens[0]}, vocab, 96 - 37);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), whole.begin() + static_cast<long>(59 * vocab)));
  EXPECT_EQ(tail.size(), 37 * vocab);
  EXPECT_TRUE(LogitsOfParts(engine.get(), {model_.tokens[0]}, vocab, 96).empty());
}

TEST_P(Invariance, WhereWeightsLieAndHowTheyAreReadDoesNotChangeLogits) {
  const std::vector<uint32_t> resident = AllLogits(options_, model_.tokens);
  EngineOptions mapped = options_;
  mapped.io = WeightIo::kMapped;
  EXPECT_TRUE(AllLogits(mapped, model_.tokens) == resident) << "mapped";
  std::vector<WeightIo> ways = {WeightIo::kPread};
  if (ProbeUring().ok()) ways.push_back(WeightIo::kUring);
  for (const WeightIo io : ways) {
    for (const char* place :
         {"all=ram", "all=disk", "ffn=disk", "attention=disk,head=disk", "all=disk,layers.1=ram"}) {
      EngineOptions split = options_;
      split.io = io;
      split.place = place;
      split.max_batch_tokens = 7;
      EXPECT_TRUE(AllLogits(split, model_.tokens) == resident) << place;
    }
  }
}

TEST_P(Invariance, TokensAreTheSameAloneAndInCompany) {
  std::unique_ptr<Engine> alone = Open(options_);
  ASSERT_NE(alone, nullptr);
  std::vector<std::vector<int32_t>> expected;
  for (size_t i = 0; i < model_.greedy.size(); ++i) {
    Result<Completion> completion = alone->Generate(GreedyRequest(i), nullptr);
    ASSERT_TRUE(completion.ok()) << completion.status().message();
    expected.push_back(completion->tokens);
  }
  EngineOptions options = options_;
  options.max_sequences = 4;
  options.max_batch_tokens = 7;
  std::unique_ptr<Engine> together = Open(options);
  ASSERT_NE(together, nullptr);
  std::vector<uint64_t> ids;
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < model_.greedy.size(); ++i) {
      Result<uint64_t> id = together->Submit(GreedyRequest(i), nullptr);
      ASSERT_TRUE(id.ok());
      ids.push_back(*id);
      ASSERT_TRUE(together->Step().ok());  // they begin at different times
    }
  }
  while (true) {
    Result<bool> worked = together->Step();
    ASSERT_TRUE(worked.ok()) << worked.status().message();
    if (!*worked) break;
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    std::unique_ptr<Completion> completion = together->TakeCompletion(ids[i]);
    ASSERT_NE(completion, nullptr);
    EXPECT_EQ(completion->tokens, expected[i % expected.size()]);
  }
}

TEST_P(Invariance, ATakenOverPrefixGivesTheSameTokens) {
  std::unique_ptr<Engine> engine = Open(options_);
  ASSERT_NE(engine, nullptr);
  Request request = GreedyRequest(0);
  request.keep_cache = true;
  Result<Completion> first = engine->Generate(request, nullptr);
  ASSERT_TRUE(first.ok());
  Result<Completion> second = engine->Generate(request, nullptr);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->timings.cached_tokens, second->prompt_tokens - 1);
  EXPECT_EQ(second->tokens, first->tokens);
  // The prompt goes on behind the answer, as in a conversation.
  Request longer = request;
  longer.prompt.insert(longer.prompt.end(), first->tokens.begin(), first->tokens.end());
  longer.prompt.push_back(300);
  Result<Completion> continued = engine->Generate(longer, nullptr);
  ASSERT_TRUE(continued.ok());
  if (GetParam().prefill == PrefillType::kInt8) {
    EXPECT_GT(continued->timings.cached_tokens, first->prompt_tokens);
  } else {  // the answer was not computed as a prompt is
    EXPECT_EQ(continued->timings.cached_tokens, first->prompt_tokens);
  }
  std::unique_ptr<Engine> fresh = Open(options_);
  Result<Completion> anew = fresh->Generate(longer, nullptr);
  ASSERT_TRUE(anew.ok());
  EXPECT_EQ(anew->timings.cached_tokens, 0);
  EXPECT_EQ(continued->tokens, anew->tokens);
}

INSTANTIATE_TEST_SUITE_P(Engine, Invariance, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return NameOf(info.param); });

double Distance(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = double{std::bit_cast<float>(a[i])} - std::bit_cast<float>(b[i]);
    sum += difference * difference;
  }
  return std::sqrt(sum);
}

// Rounding to bf16 errs by 2^-8 of a number at most, 0.2% in the mean, once for each operand; int8
// by half of 1/127 of a group's largest magnitude, which is 0.7% of the numbers of a group in the
// mean. So the logits are other ones than in int8, and nearer to those without rounding.
TEST(PrefillInBf16, IsReportedAndNearerToRefThanInt8) {
  ScratchDirectory folder;
  const GoldenModel model = testing::LoadGolden("gqa");
  const std::string path = testing::ConvertGolden(model, "int4:g32", folder / "m.sluice");
  const std::vector<uint32_t> exact = AllLogits(OptionsFor(path, "ref"), model.tokens);
  for (const OpTable* table : AvailableTables()) {
    if (!CheckBf16(*table).ok()) continue;
    EngineOptions options = OptionsFor(path, table->name);
    const std::vector<uint32_t> int8 = AllLogits(options, model.tokens);
    options.prefill = PrefillType::kBf16;
    EXPECT_EQ(Open(options)->info().prefill, PrefillType::kBf16);
    const std::vector<uint32_t> bf16 = AllLogits(options, model.tokens);
    ASSERT_EQ(bf16.size(), exact.size());
    EXPECT_FALSE(bf16 == int8) << table->name << ": the option does nothing";
    if (std::string(table->name) == "ref") continue;  // its other results are the exact ones
    EXPECT_TRUE(Distance(bf16, exact) < Distance(int8, exact))
        << table->name << ": " << Distance(bf16, exact) << ", int8 " << Distance(int8, exact);
  }
}

TEST(PrefillInBf16, IsRefusedWhereTheOperationsHaveNone) {
  ScratchDirectory folder;
  const GoldenModel model = testing::LoadGolden("gqa");
  const std::string path = testing::ConvertGolden(model, "int4:g32", folder / "m.sluice");
  EngineOptions options = OptionsFor(path, "avx2");
  options.prefill = PrefillType::kBf16;
  const Status status = Engine::Open(options).status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  if (SelectTable("avx2").ok()) {
    EXPECT_THAT(status.message(), HasSubstr("no products in bf16"));
  }
  options.isa = "cuda";
  const Status gpu = Engine::Open(options).status();
  EXPECT_EQ(gpu.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(gpu.message(), HasSubstr("--prefill bf16"));
}

class EngineRequests : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = testing::LoadGolden("gqa");
    engine_ = Open(OptionsFor(testing::ConvertGolden(model_, "keep", (folder_ / "m.sluice")), ""));
    ASSERT_NE(engine_, nullptr);
    request_.prompt = model_.greedy[0].prompt;
    request_.sampling.temperature = 0;
    request_.ignore_eos = true;
  }

  ScratchDirectory folder_;
  GoldenModel model_;
  std::unique_ptr<Engine> engine_;
  Request request_;
};

TEST_F(EngineRequests, APromptThatIsTooLongIsRefusedWithBothNumbers) {
  request_.prompt.assign(128, 5);
  const Status status = engine_->Generate(request_, nullptr).status();
  EXPECT_EQ(status.code(), ErrorCode::kLimitExceeded);
  EXPECT_THAT(status.message(), HasSubstr("128 tokens"));
  EXPECT_THAT(status.message(), HasSubstr("127"));
  request_.prompt.pop_back();
  Result<Completion> fits = engine_->Generate(request_, nullptr);
  ASSERT_TRUE(fits.ok());
  EXPECT_EQ(fits->tokens.size(), 1u);
  EXPECT_EQ(fits->finish_reason, FinishReason::kLength);
}

TEST_F(EngineRequests, EmptyPromptsAndForeignTokensAreRefused) {
  for (const std::vector<int32_t>& prompt :
       {std::vector<int32_t>{}, {-1}, {1, static_cast<int32_t>(model_.vocab)}}) {
    request_.prompt = prompt;
    EXPECT_EQ(engine_->Generate(request_, nullptr).status().code(), ErrorCode::kInvalidArgument);
  }
}

TEST_F(EngineRequests, NoTokensWantedGivesNone) {
  request_.max_new_tokens = 0;
  Result<Completion> completion = engine_->Generate(request_, nullptr);
  ASSERT_TRUE(completion.ok());
  EXPECT_TRUE(completion->tokens.empty());
  EXPECT_EQ(completion->finish_reason, FinishReason::kLength);
}

TEST_F(EngineRequests, ACallbackAndCancelEndAnAnswerAndTheNextOneWorks) {
  int deltas = 0;
  Result<Completion> stopped =
      engine_->Generate(request_, [&](const TextDelta&) { return ++deltas < 3; });
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(stopped->tokens.size(), 3u);
  Result<Completion> cancelled = engine_->Generate(request_, [&](const TextDelta&) {
    engine_->Cancel();
    return true;
  });
  ASSERT_TRUE(cancelled.ok());
  EXPECT_EQ(cancelled->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(cancelled->tokens.size(), 1u);
  request_.max_new_tokens = 64;
  Result<Completion> whole = engine_->Generate(request_, nullptr);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->tokens.size(), 64u);
}

TEST_F(EngineRequests, AStopStringEndsTheAnswerAndIsNotShown) {
  request_.max_new_tokens = 64;
  Result<Completion> whole = engine_->Generate(request_, nullptr);
  ASSERT_TRUE(whole.ok());
  ASSERT_GT(whole->text.size(), 12u);
  const std::string stop = whole->text.substr(6, 4);
  request_.stop = {stop};
  std::string shown;
  Result<Completion> stopped = engine_->Generate(request_, [&](const TextDelta& delta) {
    shown += delta.text;
    return true;
  });
  ASSERT_TRUE(stopped.ok());
  EXPECT_EQ(stopped->finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped->stop_string, stop);
  EXPECT_EQ(stopped->text, whole->text.substr(0, whole->text.find(stop)));
  EXPECT_EQ(shown, stopped->text);
}

TEST_F(EngineRequests, AModelThatDoesNotFitIsRefusedWithTheSum) {
  EngineOptions options = OptionsFor((folder_ / "m.sluice"), "");
  options.ram_bytes = 1 << 20;
  const Status status = Engine::Open(options).status();
  EXPECT_EQ(status.code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(status.message(), HasSubstr("KV cache"));
}

// Few tokens behind a long context divide it among the threads.
TEST(InvarianceOfLongContexts, LogitsAreTheSameInAnyChunkingAndOnAnyNumberOfThreads) {
  for (const char* name : {"gqa", "architectures/gemma3"}) {
    const ScratchDirectory folder;
    const GoldenModel model = testing::LoadGolden(name);
    const std::string path = testing::ConvertGolden(model, "int4:g32", folder / "m.sluice");
    std::vector<int32_t> sequence;
    while (sequence.size() < 1100) {
      sequence.insert(sequence.end(), model.tokens[0].begin(), model.tokens[0].end());
    }
    for (const OpTable* table : AvailableTables()) {
      if (test::kSanitized && table != AvailableTables().back()) continue;
      EngineOptions options = OptionsFor(path, table->name);
      options.context_tokens = static_cast<int64_t>(sequence.size());
      options.threads = 1;
      options.max_batch_tokens = 512;
      const std::vector<uint32_t> whole = AllLogits(options, {sequence});
      ASSERT_EQ(whole.size(), sequence.size() * static_cast<size_t>(model.vocab));
      for (const int64_t chunk : {5, 16, 33}) {
        options.max_batch_tokens = chunk;
        options.threads = 2 + static_cast<int>(chunk % 2);
        EXPECT_TRUE(AllLogits(options, {sequence}) == whole)
            << name << " " << table->name << " chunks of " << chunk;
      }
    }
  }
}

}  // namespace
}  // namespace sluice
