// The engine where several requests, or a request and an evaluation, want the same cache.
#include "sluice/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
