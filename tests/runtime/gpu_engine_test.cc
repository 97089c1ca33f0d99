// The engine on a GPU: emulated operations on a device that is late, short of memory or lost.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/select.h"
#include "runtime/engine_impl.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/fake_device.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using test::DeviceFaults;
using test::EmulatedGpu;
using test::FakeDevice;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMegabyte = int64_t{1} << 20;

class GpuEngine : public ::testing::Test {
 protected:
  void SetUp() override {
    golden_ = testing::LoadGolden("gqa");
    options_.model_path = testing::ConvertGolden(golden_, "int4", folder_ / "m.sluice");
    options_.context_tokens = 64;
    options_.threads = 1;
    options_.max_batch_tokens = 16;
  }

  // A GPU that the next engine opens.
  FakeDevice& Attach(const DeviceFaults& faults = {}) {
    gpu_.reset();
    device_ = std::make_shared<FakeDevice>(faults);
    gpu_.emplace(device_.get());
    return *device_;
  }
  Result<std::unique_ptr<Engine>> Open() {
    return EngineImpl::Open(options_, [this]() -> Result<Gpu> {
      if (device_ == nullptr) return Status(ErrorCode::kUnsupported, "there is no NVIDIA driver");
      return Gpu{device_, &EmulatedGpu::table()};
    });
  }

  static Request Prompt(std::vector<int32_t> ids, int64_t new_tokens) {
    Request request;
    request.prompt = std::move(ids);
    request.max_new_tokens = new_tokens;
    request.sampling.temperature = 0;
    request.ignore_eos = true;
    return request;
  }
  // A prompt of more than one pass, and a few tokens after it.
  Result<std::vector<int32_t>> Answer(Engine* engine) const {
    Request request = Prompt({golden_.tokens[0].begin(), golden_.tokens[0].begin() + 20}, 4);
    Result<Completion> completion = engine->Generate(request, nullptr);
    if (!completion.ok()) return completion.status();
    return completion->tokens;
  }
  Result<std::vector<int32_t>> OpenAndAnswer() {
    Result<std::unique_ptr<Engine>> engine = Open();
    if (!engine.ok()) return engine.status();
    return Answer(engine->get());
  }
  std::vector<int32_t> AnswerOfProcessor() {
    options_.vram_bytes = 0;
    Result<std::vector<int32_t>> tokens = OpenAndAnswer();
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    options_.vram_bytes.reset();
    return *tokens;
  }

  ScratchDirectory folder_;
  testing::GoldenModel golden_;
  EngineOptions options_;
  std::shared_ptr<FakeDevice> device_;
  std::optional<EmulatedGpu> gpu_;
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
