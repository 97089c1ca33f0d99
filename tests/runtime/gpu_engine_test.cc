// The engine on a GPU: emulated operations on a device that is late, short of memory or lost.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "tests/support/cuda_emulation/gpu_engine_case.h"

namespace sluice {
namespace {

using test::DeviceFaults;
using test::EmulatedGpu;
using test::FakeDevice;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMegabyte = int64_t{1} << 20;

class GpuEngine : public test::GpuEngineCase {
 protected:
  void SetUp() override {
    Use("gqa", "int4");
    options_.context_tokens = 64;
  }

  std::vector<int32_t> AnswerOfProcessor() {
    options_.vram_bytes = 0;
    Result<std::vector<int32_t>> tokens = OpenAndAnswer();
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    options_.vram_bytes.reset();
    return *tokens;
  }
};

TEST_F(GpuEngine, AModelThatFitsIsComputedByTheGpuUnlessToldOtherwise) {
  FakeDevice& device = Attach({.own_bytes = 1000});
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const EngineInfo& info = (*engine)->info();
  EXPECT_EQ(info.isa, "cuda");
  EXPECT_EQ(info.gpu, "fake");
  EXPECT_EQ(info.no_gpu_reason, "");
  EXPECT_EQ(info.vram_bytes, device.allocated_bytes() + 1000);
  EXPECT_LE(info.vram_bytes, info.vram_budget_bytes);
  ASSERT_EQ((*engine)->tiers().size(), 3u);
  EXPECT_EQ((*engine)->tiers()[0].name, "vram");
  EXPECT_GT((*engine)->tiers()[0].resident_bytes, 0u);
  const Result<std::vector<int32_t>> tokens = Answer(engine->get());
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_EQ(tokens->size(), 4u);
  EXPECT_GT(gpu_->launches(), 100);

  const int64_t launches = gpu_->launches();
  options_.vram_bytes = 0;
  Result<std::unique_ptr<Engine>> on_processor = Open();
  ASSERT_TRUE(on_processor.ok());
  EXPECT_EQ((*on_processor)->info().gpu, "");
  EXPECT_EQ((*on_processor)->info().isa, AvailableTables().back()->name);
  EXPECT_EQ(*Answer(on_processor->get()), *tokens);
  EXPECT_EQ(gpu_->launches(), launches);
}

TEST_F(GpuEngine, NoMemoryIsTakenAfterLoading) {
  FakeDevice& device = Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const int64_t allocations = device.allocations();
  const uint64_t peak = device.peak_bytes();
  EXPECT_EQ(peak, (*engine)->info().vram_bytes);
  ASSERT_TRUE(Answer(engine->get()).ok());
  const Status evaluated =
      (*engine)->Evaluate(std::vector(1, std::vector<int32_t>(40, 7)),
                          [](int64_t, int64_t, std::span<const float>) { return true; });
  EXPECT_TRUE(evaluated.ok()) << evaluated.message();
  EXPECT_EQ(device.allocations(), allocations);
  EXPECT_EQ(device.peak_bytes(), peak);
}

TEST_F(GpuEngine, LogitsInPartsAreThoseOfWholeRows) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const std::vector<int32_t> tokens(40, 7);
  std::vector<std::vector<float>> whole(tokens.size());
  std::vector<std::vector<float>> parts(tokens.size());
  const Status in_rows = (*engine)->Evaluate(
      std::vector(1, tokens), [&](int64_t, int64_t position, std::span<const float> logits) {
        whole[static_cast<size_t>(position)].assign(logits.begin(), logits.end());
        return true;
      });
  const Status in_parts = (*engine)->EvaluateInParts(
      tokens, 0, [&](int64_t position, int64_t first_id, std::span<const float> logits) {
        std::vector<float>& row = parts[static_cast<size_t>(position)];
        if (row.size() != static_cast<size_t>(first_id)) return false;
        row.insert(row.end(), logits.begin(), logits.end());
        return true;
      });
  EXPECT_TRUE(in_rows.ok()) << in_rows.message();
  EXPECT_TRUE(in_parts.ok()) << in_parts.message();
  EXPECT_FALSE(whole[39].empty());
  EXPECT_TRUE(whole == parts);
}

TEST_F(GpuEngine, TheSmallestBudgetIsSaidAndIsTheSmallestThatWorks) {
  Attach({.own_bytes = 5 * kMegabyte});
  options_.vram_bytes = 1000;
  const Status refused = Open().status();
  EXPECT_EQ(refused.code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(refused.message(),
              AllOf(HasSubstr("1000 are allowed"), HasSubstr("fake itself 5242880"),
                    HasSubstr("KV cache of 64 tokens"), HasSubstr("--vram 0")));
  const uint64_t smallest = std::stoull(refused.message().substr(refused.message().find(": ") + 2));
  options_.vram_bytes = smallest - 1;
  EXPECT_EQ(Open().status().code(), ErrorCode::kDoesNotFit);
  options_.vram_bytes = smallest;
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().vram_bytes, smallest);
  EXPECT_TRUE(Answer(engine->get()).ok());
}

TEST_F(GpuEngine, AModelThatDoesNotFitIsTheProcessorsUnlessAGpuIsAskedFor) {
  const std::vector<int32_t> expected = AnswerOfProcessor();
  Attach({.memory_bytes = 64 << 10});
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().gpu, "");
  EXPECT_TRUE((*engine)->info().gpu_found);
  EXPECT_THAT((*engine)->info().no_gpu_reason, HasSubstr("are free"));
  EXPECT_EQ(*Answer(engine->get()), expected);
  for (const bool by_isa : {true, false}) {
    options_.isa = by_isa ? "cuda" : "";
    options_.vram_bytes = by_isa ? std::nullopt : std::optional<uint64_t>(1 << 30);
    EXPECT_EQ(Open().status().code(), ErrorCode::kDoesNotFit);
  }
}

TEST_F(GpuEngine, WithoutAGpuTheProcessorComputesUnlessAGpuIsAskedFor) {
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_FALSE((*engine)->info().gpu_found);
  EXPECT_EQ((*engine)->info().no_gpu_reason, "there is no NVIDIA driver");
  options_.isa = "cuda";
  EXPECT_EQ(Open().status().code(), ErrorCode::kUnsupported);
  options_.isa = "";
  options_.vram_bytes = 1 << 30;
  EXPECT_EQ(Open().status().code(), ErrorCode::kUnsupported);
}

TEST_F(GpuEngine, WhatTheGpuCannotComputeGoesToTheProcessorUnlessAGpuIsAskedFor) {
  Attach();
  options_.kv_cache_type = KvCacheType::kF32;
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_THAT((*engine)->info().no_gpu_reason, HasSubstr("f16"));
  EXPECT_EQ(device_->live_objects(), 0);
  options_.isa = "cuda";
  EXPECT_EQ(Open().status().code(), ErrorCode::kUnsupported);
}

TEST_F(GpuEngine, OptionsAgainstEachOtherAreRefused) {
  Attach();
  const auto refused = [&](const EngineOptions& options) {
    options_ = options;
    const Status status = Open().status();
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << status.message();
  };
  const EngineOptions plain = options_;
  EngineOptions options = plain;
  options.isa = "cuda";
  options.vram_bytes = 0;
  refused(options);
  options = plain;
  options.isa = "ref";
  options.vram_bytes = 1 << 30;
  refused(options);
  options = plain;
  options.isa = "cuda";
  options.place = "head=disk";
  refused(options);
  options = plain;
  options.vram_bytes = 1 << 30;
  options.io = WeightIo::kUring;
  refused(options);
  EXPECT_EQ(device_->calls(), 0);
}

// Chunked prefill, sequences that start late, prefixes that are taken over and blocks that are
// copied on write: the tokens are those that each request gets alone.
TEST_F(GpuEngine, SequencesBesideEachOtherGetTheTokensThatTheyGetAlone) {
  options_.max_sequences = 3;
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const std::vector<int32_t>& ids = golden_.tokens[1];
  // The second and third share 21 tokens with the first, which ends in the middle of a block.
  const std::vector<std::vector<int32_t>> prompts = {{ids.begin(), ids.begin() + 21},
                                                     {ids.begin(), ids.begin() + 30},
                                                     {ids.begin(), ids.begin() + 23},
                                                     {ids.begin() + 40, ids.begin() + 45}};
  std::vector<std::vector<int32_t>> alone;
  for (const auto& prompt : prompts) {
    Result<Completion> completion = (*engine)->Generate(Prompt(prompt, 5), nullptr);
    ASSERT_TRUE(completion.ok()) << completion.status().message();
    alone.push_back(completion->tokens);
  }
  Request first = Prompt(prompts[0], 5);
  first.keep_cache = true;
  ASSERT_EQ((*engine)->Generate(first, nullptr)->tokens, alone[0]);
  std::vector<uint64_t> requests;
  for (size_t i = 1; i < prompts.size(); ++i) {
    const Result<uint64_t> id = (*engine)->Submit(Prompt(prompts[i], 5), nullptr);
    ASSERT_TRUE(id.ok());
    requests.push_back(*id);
    ASSERT_TRUE(*(*engine)->Step());
  }
  for (bool more = true; more;) {
    const Result<bool> step = (*engine)->Step();
    ASSERT_TRUE(step.ok()) << step.status().message();
    more = *step;
  }
  int64_t cached = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::unique_ptr<Completion> completion = (*engine)->TakeCompletion(requests[i]);
    ASSERT_NE(completion, nullptr);
    EXPECT_EQ(completion->tokens, alone[i + 1]) << i;
    cached += completion->timings.cached_tokens;
  }
  EXPECT_GT(cached, 0);
}

// Samplers that look at few logits, and some that want all.
std::vector<SamplingOptions> Samplers() {
  SamplingOptions greedy;
  greedy.temperature = 0;
  SamplingOptions greedy_with_probabilities = greedy;
  greedy_with_probabilities.logprobs = 5;
  const SamplingOptions usual;
  SamplingOptions best = usual;
  best.top_k = 3;
  best.top_p = 1;
  best.min_p = 0;
  best.logprobs = 7;
  SamplingOptions whole = usual;
  whole.top_k = 0;
  SamplingOptions penalty = greedy;
  penalty.repeat_penalty = 1.5f;
  SamplingOptions bias = greedy;
  bias.logit_bias = {{17, 100.0f}};
  return {greedy, greedy_with_probabilities, usual, best, whole, penalty, bias};
}

TEST_F(GpuEngine, TheBestLogitsAloneGiveTheTokensThatAllGive) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const auto vocab = static_cast<size_t>((*engine)->info().vocab_size);
  const std::vector<SamplingOptions> samplers = Samplers();
  for (size_t i = 0; i < samplers.size(); ++i) {
    Request request = Prompt({golden_.tokens[0].begin(), golden_.tokens[0].begin() + 5}, 6);
    request.sampling = samplers[i];
    const uint64_t copied_before = device_->bytes_to_host();
    const Result<Completion> completion = (*engine)->Generate(request, nullptr);
    ASSERT_TRUE(completion.ok()) << completion.status().message();
    const uint64_t copied = device_->bytes_to_host() - copied_before;
    const uint64_t whole = completion->tokens.size() * vocab * sizeof(float);
    EXPECT_EQ(copied == whole, i >= 4) << i << ": " << copied << " of " << whole << " bytes";
    EXPECT_LE(copied, whole);

    // The same tokens from whole logits of the same device.
    Sampler sampler(samplers[i], static_cast<int32_t>(vocab));
    for (int32_t id : request.prompt) sampler.Accept(id);
    std::vector<int32_t> tokens = request.prompt;
    tokens.insert(tokens.end(), completion->tokens.begin(), completion->tokens.end());
    size_t next = 0;
    const Status status = (*engine)->Evaluate(
        std::vector(1, tokens), [&](int64_t, int64_t position, std::span<const float> logits) {
          if (position + 1 < 5 || next == completion->tokens.size()) return true;
          const Result<SampledToken> token = sampler.Sample(logits);
          EXPECT_TRUE(token.ok());
          EXPECT_EQ(token->id, completion->tokens[next]) << i << ", " << next;
          sampler.Accept(token->id);
          const SampledToken& reported = completion->details[next++];
          EXPECT_NEAR(reported.logprob, token->logprob, 1e-5);
          EXPECT_EQ(reported.top.size(), token->top.size());
          for (size_t k = 0; k < std::min(reported.top.size(), token->top.size()); ++k) {
            EXPECT_EQ(reported.top[k].first, token->top[k].first);
            EXPECT_NEAR(reported.top[k].second, token->top[k].second, 1e-5);
          }
          return true;
        });
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(next, completion->tokens.size());
  }
}

// Ids and the bits of their probabilities.
using Sampled = std::vector<std::pair<int32_t, uint32_t>>;

// Sequences of different lengths beside each other until all end, so that steps are alike for a
// while, then fewer; one passes the end of a partition of the attention.
std::vector<Sampled> AnswersBesideEachOther(Engine* engine, const std::vector<int32_t>& ids) {
  std::vector<uint64_t> requests;
  for (const auto& [length, wanted] : {std::pair(3, 12), std::pair(250, 14), std::pair(20, 5)}) {
    Request request;
    for (int i = 0; i < length; ++i) {
      request.prompt.push_back(ids[static_cast<size_t>(i * 7 + length) % ids.size()]);
    }
    request.max_new_tokens = wanted;
    request.ignore_eos = true;
    request.sampling.seed = 5;
    const Result<uint64_t> id = engine->Submit(request, nullptr);
    EXPECT_TRUE(id.ok());
    requests.push_back(*id);
  }
  for (bool more = true; more;) {
    const Result<bool> step = engine->Step();
    EXPECT_TRUE(step.ok()) << step.status().message();
    more = step.ok() && *step;
  }
  std::vector<Sampled> answers;
  for (const uint64_t request : requests) {
    const std::unique_ptr<Completion> completion = engine->TakeCompletion(request);
    if (completion == nullptr) return {};
    answers.emplace_back();
    for (const SampledToken& token : completion->details) {
      answers.back().emplace_back(token.id, std::bit_cast<uint32_t>(token.logprob));
    }
  }
  return answers;
}

TEST_F(GpuEngine, StepsThatAreRecordedGiveTheSameTokens) {
  options_.max_sequences = 3;
  options_.context_tokens = 512;
  options_.max_batch_tokens = 64;
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const uint64_t smallest = (*engine)->info().vram_bytes;
  const std::vector<Sampled> recorded = AnswersBesideEachOther(engine->get(), golden_.tokens[0]);
  // Steps of several and of one sequence, with contexts up to 256 or 512 tokens.
  EXPECT_GE(device_->graphs(), 3);
  EXPECT_GE(device_->graph_launches(), 6);
  engine->reset();

  Attach();
  options_.vram_bytes = smallest;
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ(AnswersBesideEachOther(engine->get(), golden_.tokens[0]), recorded);
  EXPECT_EQ(device_->graphs(), 0) << "there is no room for recordings within that budget";
  engine->reset();

  // A recording that cannot be made is no error, and is not tried again.
  Attach({.fail_graph = 1});
  options_.vram_bytes.reset();
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ(AnswersBesideEachOther(engine->get(), golden_.tokens[0]), recorded);
  EXPECT_EQ(device_->graphs(), 2);
  engine->reset();

  // What recordings take counts against the budget.
  Attach({.graph_bytes = 40 * kMegabyte});
  options_.vram_bytes = smallest + 100 * kMegabyte;
  engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ(AnswersBesideEachOther(engine->get(), golden_.tokens[0]), recorded);
  EXPECT_EQ(device_->graphs(), 1);
}

TEST_F(GpuEngine, EveryAllocationThatFindsNoMemoryIsAnErrorOrTheProcessorsWork) {
  const std::vector<int32_t> expected = AnswerOfProcessor();
  FakeDevice& counting = Attach();
  ASSERT_TRUE(OpenAndAnswer().ok());
  const int64_t allocations = counting.allocations();
  ASSERT_GE(allocations, 8);
  for (int64_t i = 0; i < allocations; ++i) {
    options_.isa = "cuda";
    Attach({.fail_allocation = i});
    EXPECT_EQ(OpenAndAnswer().status().code(), ErrorCode::kOutOfMemory) << i;
    EXPECT_EQ(device_->live_objects(), 0);
    options_.isa = "";
    Attach({.fail_allocation = i});
    const Result<std::vector<int32_t>> tokens = OpenAndAnswer();
    ASSERT_TRUE(tokens.ok()) << i << ": " << tokens.status().message();
    EXPECT_EQ(*tokens, expected);
    EXPECT_EQ(device_->live_objects(), 0);
  }
}

TEST_F(GpuEngine, ADeviceThatIsLostAtAnyCallIsAnErrorThatLeavesNothing) {
  options_.isa = "cuda";
  FakeDevice& counting = Attach();
  ASSERT_TRUE(OpenAndAnswer().ok());
  const int64_t calls = counting.calls();
  ASSERT_GE(calls, 50);
  for (int64_t i = 0; i < calls; ++i) {
    Attach({.lost_at_call = i});
    const Status status = OpenAndAnswer().status();
    EXPECT_EQ(status.code(), ErrorCode::kIo)
        << "call " << i << " of " << calls << ": " << status.message();
    EXPECT_EQ(device_->live_objects(), 0) << i;
  }
}

TEST_F(GpuEngine, AnEngineWhoseGpuIsLostSaysSoAgainAndAgain) {
  Attach();
  int64_t calls_of_load = 0;
  {
    Result<std::unique_ptr<Engine>> engine = Open();
    ASSERT_TRUE(engine.ok());
    calls_of_load = device_->calls();
  }
  Attach({.lost_at_call = calls_of_load + 3});
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Answer(engine->get()).status().code(), ErrorCode::kIo);
  engine->reset();
  EXPECT_EQ(device_->live_objects(), 0);
}

TEST_F(GpuEngine, LoadingThatIsCancelledDoesNotGoToTheProcessor) {
  Attach();
  options_.load_progress = [](uint64_t, uint64_t) { return false; };
  EXPECT_EQ(Open().status().code(), ErrorCode::kCancelled);
  EXPECT_EQ(device_->live_objects(), 0);
}

TEST_F(GpuEngine, ACancelledPassLeavesAnEngineThatWorks) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok());
  const Result<std::vector<int32_t>> expected = Answer(engine->get());
  int seen = 0;
  Request request = Prompt({golden_.tokens[0].begin(), golden_.tokens[0].begin() + 20}, 4);
  const Result<Completion> cancelled =
      (*engine)->Generate(request, [&](const TextDelta&) { return ++seen < 2; });
  ASSERT_TRUE(cancelled.ok());
  EXPECT_EQ(cancelled->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(*Answer(engine->get()), *expected);
}

TEST_F(GpuEngine, ATraceHasTheGpusGroups) {
  Attach();
  options_.trace = true;
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok());
  ASSERT_TRUE(Answer(engine->get()).ok());
  EXPECT_TRUE((*engine)->WriteTrace(folder_ / "trace.json").ok());
}

}  // namespace
}  // namespace sluice
