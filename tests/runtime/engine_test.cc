// The engine where several requests, or a request and an evaluation, want the same cache.
#include "sluice/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

class EngineSharing : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.model_path =
        testing::ConvertGolden(testing::LoadGolden("gqa"), "keep", folder_ / "m.sluice");
    options_.context_tokens = 128;
    options_.threads = 1;
  }

  ScratchDirectory folder_;
  EngineOptions options_;
};

TEST_F(EngineSharing, AnEvaluationTakesTheRoomOfWhatWasKept) {
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  Request request;
  request.prompt.assign(100, 5);
  request.max_new_tokens = 1;
  request.keep_cache = true;
  ASSERT_TRUE((*engine)->Generate(request, nullptr).ok());
  int64_t positions = 0;
  const Status status = (*engine)->Evaluate(std::vector(1, std::vector<int32_t>(128, 7)),
                                            [&](int64_t, int64_t, std::span<const float>) {
                                              ++positions;
                                              return true;
                                            });
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(positions, 128);
}

class EngineEvaluation : public EngineSharing {
 protected:
  // Bytes that evaluating these read from the disk.
  uint64_t ReadBytes(const std::function<Status(Engine*)>& evaluate) {
    Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    if (!engine.ok()) return 0;
    const uint64_t loading = (*engine)->tiers().back().read_bytes;
    const Status status = evaluate(engine->get());
    EXPECT_TRUE(status.ok()) << status.message();
    return (*engine)->tiers().back().read_bytes - loading;
  }
  const std::vector<int32_t> tokens_ = std::vector<int32_t>(128, 7);
};

TEST_F(EngineEvaluation, AHeadThatStreamsIsReadOnceForAllPositionsOfAPass) {
  options_.place = "head=disk";
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  const uint64_t head_bytes = (*engine)->info().streamed_bytes;
  ASSERT_GT(head_bytes, 0u);
  const uint64_t in_parts = ReadBytes([&](Engine* streams) {
    return streams->EvaluateInParts(tokens_, 0,
                                    [](int64_t, int64_t, std::span<const float>) { return true; });
  });
  // Once, and perhaps ahead for a pass that does not come.
  EXPECT_GE(in_parts, head_bytes);
  EXPECT_LE(in_parts, 2 * head_bytes);
  const uint64_t in_rows = ReadBytes([&](Engine* streams) {
    return streams->Evaluate(std::vector(1, tokens_),
                             [](int64_t, int64_t, std::span<const float>) { return true; });
  });
  EXPECT_GE(in_rows, 8 * head_bytes);
}

// More rows than the vocabulary of 307 has ids: not even a tile of the head for all of them fits.
TEST_F(EngineEvaluation, MorePositionsThanThereAreIds) {
  options_.context_tokens = 700;
  options_.max_batch_tokens = 700;
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 700; ++i) tokens.push_back(i * 31 % 307);
  std::vector<float> rows;
  std::vector<float> parts(700 * 307);
  const Status in_rows = (*engine)->Evaluate(
      std::vector(1, tokens), [&](int64_t, int64_t, std::span<const float> logits) {
        rows.insert(rows.end(), logits.begin(), logits.end());
        return true;
      });
  const Status in_parts = (*engine)->EvaluateInParts(
      tokens, 0, [&](int64_t position, int64_t first_id, std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), parts.begin() + position * 307 + first_id);
        return true;
      });
  EXPECT_TRUE(in_rows.ok()) << in_rows.message();
  EXPECT_TRUE(in_parts.ok()) << in_parts.message();
  EXPECT_TRUE(rows == parts);
}

TEST_F(EngineEvaluation, EndsWhenTheCallbackSaysSoAndGoesOnLater) {
  for (const char* place : {"all=ram", "all=disk"}) {
    options_.place = place;
    options_.threads = 2;
    Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    const auto evaluate = [&](bool go_on) {
      return (*engine)->EvaluateInParts(
          tokens_, 0, [&](int64_t, int64_t, std::span<const float>) { return go_on; });
    };
    EXPECT_EQ(evaluate(false).code(), ErrorCode::kCancelled);
    EXPECT_TRUE(evaluate(true).ok());
    EXPECT_EQ(evaluate(false).code(), ErrorCode::kCancelled);
  }
}

TEST_F(EngineEvaluation, TokensThatCannotBeEvaluatedAreRefused) {
  Result<std::unique_ptr<Engine>> engine = Engine::Open(options_);
  ASSERT_TRUE(engine.ok());
  const auto code_of = [&](const std::vector<int32_t>& tokens) {
    const auto ignore = [](auto...) { return true; };
    const Status in_rows = (*engine)->Evaluate(std::vector(1, tokens), ignore);
    EXPECT_EQ((*engine)->EvaluateInParts(tokens, 0, ignore).code(), in_rows.code());
    return in_rows.code();
  };
  EXPECT_EQ(code_of({}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(std::vector<int32_t>(129, 7)), ErrorCode::kLimitExceeded);
  for (const size_t place : {0, 5, 127}) {
    for (const int32_t id : {-1, 307, INT32_MAX, INT32_MIN}) {
      std::vector<int32_t> tokens = tokens_;
      tokens[place] = id;
      EXPECT_EQ(code_of(tokens), ErrorCode::kInvalidArgument) << place << ": " << id;
    }
  }
  EXPECT_EQ(code_of({7}), ErrorCode::kOk);
  EXPECT_EQ(code_of(tokens_), ErrorCode::kOk) << "as long as the context";
}

TEST_F(EngineSharing, APassHasRoomForATokenOfEverySequence) {
  options_.max_sequences = 3;
  options_.max_batch_tokens = 2;
  const Status status = Engine::Open(options_).status();
  EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("2 tokens"));
  EXPECT_THAT(status.message(), HasSubstr("for 3 sequences"));
  options_.max_batch_tokens = 3;
  EXPECT_TRUE(Engine::Open(options_).ok());
}

}  // namespace
}  // namespace sluice
