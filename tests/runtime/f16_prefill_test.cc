// --prefill f16 through the engine: emulated operations, a device that is late, short of memory or
// lost, and a cuBLASLt that multiplies on the host.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/device_scratch.h"
#include "runtime/engine_options.h"
#include "tests/support/cuda_emulation/fake_f16_library.h"
#include "tests/support/cuda_emulation/gpu_engine_case.h"

namespace sluice {
namespace {

using test::DeviceFaults;
using test::EmulatedGpu;
using test::FakeDevice;
using test::FakeF16Library;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMegabyte = uint64_t{1} << 20;

class F16Prefill : public test::GpuEngineCase {
 protected:
  void SetUp() override { Use("gqa", "int4"); }

  void Use(const std::string& golden, const std::string& quantization) {
    GpuEngineCase::Use(golden, quantization);
    options_.context_tokens = 128;
    options_.prefill = PrefillType::kF16;
    libraries_ = FakeF16Library::Libraries();
  }

  // A GPU and a library that the next engine opens.
  FakeDevice& Attach(const DeviceFaults& faults = {}) {
    library_.reset();
    FakeDevice& device = GpuEngineCase::Attach(faults);
    library_.emplace(&device);
    return device;
  }
  // Teacher-forced, of the first 40 tokens.
  std::vector<float> Logits() {
    Result<std::unique_ptr<Engine>> engine = Open();
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    if (!engine.ok()) return {};
    std::vector<float> all;
    const Status status = (*engine)->Evaluate(std::vector(1, FirstTokens(40, 0).prompt),
                                              [&](int64_t, int64_t, std::span<const float> logits) {
                                                all.insert(all.end(), logits.begin(), logits.end());
                                                return true;
                                              });
    EXPECT_TRUE(status.ok()) << status.message();
    return all;
  }

  std::optional<FakeF16Library> library_;
};

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.empty() || a.size() != b.size()) return std::nan("");
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = double{a[i]} - double{b[i]};
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.size()));
}

TEST_F(F16Prefill, PromptsAreTheLibrarysAndAnswersAreNot) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().prefill, PrefillType::kF16);
  EXPECT_THAT((*engine)->info().f16_library, HasSubstr("cuBLASLt 13.2.5"));
  EXPECT_EQ((*engine)->info().gpu, "fake");
  const size_t before = (*library_)->products.size();
  ASSERT_TRUE((*engine)->Generate(FirstTokens(16, 1), nullptr).ok());
  const size_t after = (*library_)->products.size();
  EXPECT_GT(after, before);
  // Each matrix of each layer once, for a prompt of one pass.
  EXPECT_EQ((after - before) % 7, 0u);
  ASSERT_TRUE((*engine)->Generate(FirstTokens(16, 6), nullptr).ok());
  EXPECT_EQ((*library_)->products.size() - after, after - before);
}

// Rounding to f16 errs by 2^-12 of a number, int8 by half of 1/127 of a group's largest. The logits
// of the fake library are exact but for that, so they are much nearer to those of ref.
TEST_F(F16Prefill, IsNearerToRefThanInt8) {
  for (const auto& [golden, quantization] :
       {std::pair("gqa", "int4"), std::pair("gqa", "keep"), std::pair("bias_linear", "int4:g32"),
        std::pair("gguf/kquants", "keep"), std::pair("architectures/gemma2", "int8")}) {
    SCOPED_TRACE(std::string(golden) + " " + quantization);
    Use(golden, quantization);
    Attach();
    const std::vector<float> f16 = Logits();
    options_.prefill = PrefillType::kInt8;
    options_.isa = "cuda";
    Attach();
    const std::vector<float> int8 = Logits();
    options_.isa = "ref";
    options_.kv_cache_type = KvCacheType::kF32;
    const std::vector<float> exact = Logits();
    const double of_f16 = Distance(f16, exact);
    RecordProperty(std::string(golden) + " " + quantization,
                   fmt::format("{:.2e}, int8 {:.2e}", of_f16, Distance(int8, exact)));
    if (std::string(quantization) == "keep" && std::string(golden) == "gqa") {
      // Float weights are not quantized: activations in f16 and the cache are what differs.
      EXPECT_TRUE(of_f16 <= 4 * Distance(int8, exact));
      continue;
    }
    EXPECT_TRUE(of_f16 <= 0.5 * Distance(int8, exact))
        << of_f16 << ", int8 " << Distance(int8, exact);
  }
}

// More than 32 tokens are attended to by another kernel, whose sums have another order.
TEST_F(F16Prefill, LogitsAreTheSameInAnyChunksOfWhatOneKernelAttendsTo) {
  const auto in_chunks_of = [this](int64_t chunk) {
    options_.max_batch_tokens = chunk;
    Attach();
    return Logits();
  };
  const std::vector<float> few = in_chunks_of(16);
  ASSERT_FALSE(few.empty());
  for (const int64_t chunk : {1, 3, 7, 32}) EXPECT_EQ(in_chunks_of(chunk), few) << chunk;
  const std::vector<float> many = in_chunks_of(40);
  EXPECT_EQ(in_chunks_of(100), many);
  options_.prefill = PrefillType::kInt8;
  options_.isa = "ref";
  options_.kv_cache_type = KvCacheType::kF32;
  const std::vector<float> exact = Logits();
  // As far apart as two that round differently, each of which is so far from the exact ones.
  EXPECT_TRUE(Distance(many, few) <= 1.5 * Distance(few, exact));
  EXPECT_TRUE(Distance(many, exact) <= 1.25 * Distance(few, exact));
}

TEST_F(F16Prefill, SequencesBesideEachOtherGetTheTokensThatTheyGetAlone) {
  options_.max_sequences = 3;
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const std::vector<size_t> lengths = {1, 21, 30};
  std::vector<std::vector<int32_t>> alone;
  for (size_t length : lengths) {
    const Result<Completion> completion =
        (*engine)->Generate(FirstTokens(static_cast<int64_t>(length), 8), nullptr);
    ASSERT_TRUE(completion.ok()) << completion.status().message();
    alone.push_back(completion->tokens);
  }
  std::vector<uint64_t> requests;
  for (size_t length : lengths) {
    const Result<uint64_t> id =
        (*engine)->Submit(FirstTokens(static_cast<int64_t>(length), 8), nullptr);
    ASSERT_TRUE(id.ok());
    requests.push_back(*id);
    ASSERT_TRUE(*(*engine)->Step());
  }
  for (bool more = true; more;) {
    const Result<bool> step = (*engine)->Step();
    ASSERT_TRUE(step.ok()) << step.status().message();
    more = *step;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::unique_ptr<Completion> completion = (*engine)->TakeCompletion(requests[i]);
    ASSERT_NE(completion, nullptr);
    EXPECT_EQ(completion->tokens, alone[i]) << i;
  }
}

// A prompt of one token is a pass like a step of decoding, but is not to be replayed as one.
TEST_F(F16Prefill, PromptsOfOneTokenAreNotRecorded) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const Result<Completion> first = (*engine)->Generate(FirstTokens(1, 6), nullptr);
  ASSERT_TRUE(first.ok());
  EXPECT_GT(device_->graph_launches(), 0) << "of decoding";
  for (int i = 0; i < 3; ++i) {
    const size_t before = (*library_)->products.size();
    const Result<Completion> again = (*engine)->Generate(FirstTokens(1, 6), nullptr);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->tokens, first->tokens);
    EXPECT_GT((*library_)->products.size(), before);
  }
}

TEST_F(F16Prefill, APromptTakesOverOnlyWhatWasAPrompt) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok());
  Request request = FirstTokens(20, 5);
  request.keep_cache = true;
  const Result<Completion> first = (*engine)->Generate(request, nullptr);
  ASSERT_TRUE(first.ok());
  Request longer = request;
  longer.prompt.insert(longer.prompt.end(), first->tokens.begin(), first->tokens.end());
  const Result<Completion> second = (*engine)->Generate(longer, nullptr);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->timings.cached_tokens, 20);
}

TEST_F(F16Prefill, TheSmallestBudgetCountsPanelWorkspaceAndLibrary) {
  Attach({.own_bytes = 5 * kMegabyte});
  options_.vram_bytes = 1000;
  const Status refused = Open().status();
  EXPECT_EQ(refused.code(), ErrorCode::kDoesNotFit);
  EXPECT_THAT(refused.message(), HasSubstr(fmt::format("cuBLASLt {}", kF16LibraryBytes)));
  const uint64_t smallest = std::stoull(refused.message().substr(refused.message().find(": ") + 2));
  EXPECT_GT(smallest, kF16LibraryBytes + kCublasLtWorkspaceBytes);
  options_.vram_bytes = smallest - 1;
  EXPECT_EQ(Open().status().code(), ErrorCode::kDoesNotFit);
  options_.vram_bytes = smallest;
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_EQ((*engine)->info().vram_bytes, smallest);
  EXPECT_TRUE((*engine)->Generate(FirstTokens(20, 3), nullptr).ok());
  const uint64_t peak = device_->peak_bytes();
  EXPECT_EQ(peak + 5 * kMegabyte + kF16LibraryBytes, smallest);
  engine->reset();
  // Without f16 none of it is counted.
  options_.prefill = PrefillType::kInt8;
  options_.vram_bytes = 1000;
  const std::string without = Open().status().message();
  EXPECT_THAT(without, ::testing::Not(HasSubstr("cuBLASLt")));
  EXPECT_LT(std::stoull(without.substr(without.find(": ") + 2)),
            smallest - kF16LibraryBytes - kCublasLtWorkspaceBytes);
}

TEST_F(F16Prefill, NoMemoryIsTakenAfterLoading) {
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  // Every shape that a prompt needs was asked for while loading.
  const size_t choices = (*library_)->choices.size();
  EXPECT_GT(choices, 0u);
  const int64_t allocations = device_->allocations();
  ASSERT_TRUE((*engine)->Generate(FirstTokens(60, 3), nullptr).ok());
  EXPECT_EQ(device_->allocations(), allocations);
  EXPECT_EQ((*library_)->choices.size(), choices);
}

TEST_F(F16Prefill, WithoutTheLibraryItIsRefusedWithTheReason) {
  Attach();
  libraries_ = {"libno-such.so.13", "libno-such.so.12"};
  const Status status = Open().status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("prefill in f16"), HasSubstr("libno-such.so.13"),
                                      HasSubstr("libno-such.so.12")));
  EXPECT_EQ(device_->live_objects(), 0);
  options_.prefill = PrefillType::kInt8;
  EXPECT_TRUE(OpenAndAnswer().ok()) << "nothing else needs it";
}

TEST_F(F16Prefill, WithoutAGpuItIsRefused) {
  const Status status = Open().status();
  EXPECT_EQ(status.code(), ErrorCode::kUnsupported);
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("prefill in f16 is for a GPU"), HasSubstr("no NVIDIA driver")));
  options_.isa = "ref";
  EXPECT_EQ(Open().status().code(), ErrorCode::kInvalidArgument);
  options_.isa = "";
  options_.vram_bytes = 0;
  EXPECT_EQ(Open().status().code(), ErrorCode::kInvalidArgument);
}

TEST_F(F16Prefill, AModelThatDoesNotFitIsAnErrorNotTheProcessorsWork) {
  Attach({.memory_bytes = 64 << 10});
  EXPECT_EQ(Open().status().code(), ErrorCode::kDoesNotFit);
}

TEST_F(F16Prefill, WhatTheLibraryRefusesIsAnError) {
  for (const char* function : {"Create", "MatmulAlgoGetHeuristic", "Matmul"}) {
    Attach();
    (*library_)->errors = {{function, 15}};
    const Status status = OpenAndAnswer().status();
    EXPECT_EQ(status.code(), ErrorCode::kUnsupported) << function;
    EXPECT_THAT(status.message(), HasSubstr("cuBLASLt 13.2.5"));
    EXPECT_EQ(device_->live_objects(), 0);
  }
  // While a prompt is computed.
  Attach();
  Result<std::unique_ptr<Engine>> engine = Open();
  ASSERT_TRUE(engine.ok());
  (*library_)->errors = {{"Matmul", 14}};
  EXPECT_EQ((*engine)->Generate(FirstTokens(20, 3), nullptr).status().code(), ErrorCode::kIo);
  (*library_)->errors.clear();
  EXPECT_TRUE((*engine)->Generate(FirstTokens(20, 3), nullptr).ok());
}

TEST_F(F16Prefill, EveryAllocationThatFindsNoMemoryIsAnError) {
  FakeDevice& counting = Attach();
  ASSERT_TRUE(OpenAndAnswer().ok());
  const int64_t allocations = counting.allocations();
  for (int64_t i = 0; i < allocations; ++i) {
    Attach({.fail_allocation = i});
    EXPECT_EQ(OpenAndAnswer().status().code(), ErrorCode::kOutOfMemory) << i;
    EXPECT_EQ(device_->live_objects(), 0);
  }
}

TEST_F(F16Prefill, ADeviceThatIsLostAtAnyCallIsAnErrorThatLeavesNothing) {
  FakeDevice& counting = Attach();
  ASSERT_TRUE(OpenAndAnswer().ok());
  const int64_t calls = counting.calls();
  for (int64_t i = 0; i < calls; ++i) {
    Attach({.lost_at_call = i});
    const Status status = OpenAndAnswer().status();
    EXPECT_EQ(status.code(), ErrorCode::kIo)
        << "call " << i << " of " << calls << ": " << status.message();
    EXPECT_EQ(device_->live_objects(), 0) << i;
  }
}

TEST(BatchTokens, LongPassesAreForPromptsInF16) {
  EXPECT_EQ(DefaultBatchTokens(false, 100000, 8), 512);
  EXPECT_EQ(DefaultBatchTokens(true, 100000, 8), 4096);
  EXPECT_EQ(DefaultBatchTokens(true, 64, 1), 512);
  EXPECT_EQ(DefaultBatchTokens(true, 1000, 2), 2000);
  EXPECT_EQ(DefaultBatchTokens(true, INT32_MAX, int64_t{1} << 60), 4096);
}

TEST(DeviceScratchSizes, ThePanelIsThatOfTheLargestMatrixOfAPrompt) {
  const testing::GoldenModel golden = testing::LoadGolden("gqa");
  const ScratchDirectory folder;
  const auto file = *SluiceFile::Open(testing::ConvertGolden(golden, "int4", folder / "m.sluice"));
  const ModelDescription description = *DescribeModel(file->config());
  const DeviceScratchSizes without = DeviceScratchSizesOf(description, golden.vocab, 16, 64, 4);
  EXPECT_EQ(without.panel_values, 0);
  EXPECT_EQ(without.workspace_bytes, 0u);
  const DeviceScratchSizes with = DeviceScratchSizesOf(description, golden.vocab, 16, 64, 4, true);
  int64_t largest = 0;
  for (size_t g = 0; g + 1 < description.groups.size(); ++g) {
    for (const TensorRequirement& tensor : description.groups[g].tensors) {
      if (tensor.kind != TensorKind::kMatrix) continue;
      largest = std::max(largest, static_cast<int64_t>((tensor.rows + 15) / 16 * 16 *
                                                       ((tensor.cols + 31) / 32 * 32)));
    }
  }
  EXPECT_EQ(with.panel_values, largest);
  EXPECT_EQ(DeviceScratch::DeviceBytes(with) - DeviceScratch::DeviceBytes(without),
            (static_cast<uint64_t>(largest) * 2 + 63) / 64 * 64 + kCublasLtWorkspaceBytes + 256);
  EXPECT_EQ(DeviceScratch::StagingBytes(with), DeviceScratch::StagingBytes(without));
}

}  // namespace
}  // namespace sluice
