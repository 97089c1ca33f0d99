// An engine that does not get its memory: an error that names what for, nothing left, and the next
// one works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "sluice/engine.h"
#include "tests/support/faulty_memory.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

EngineOptions OptionsFor(const std::string& path) {
  EngineOptions options;
  options.model_path = path;
  options.threads = 2;
  options.context_tokens = 64;
  return options;
}

Status Answer(Engine* engine) {
  Request request;
  request.prompt = {1, 2, 3};
  request.sampling.temperature = 0;
  request.max_new_tokens = 4;
  request.ignore_eos = true;
  const Result<Completion> completion = engine->Generate(request, nullptr);
  return completion.status();
}

TEST(Allocation, EachThatFailsWhileAnEngineOpensIsNamedAndLeavesNothing) {
  const ScratchDirectory scratch;
  const std::string path =
      testing::ConvertGolden(testing::LoadGolden("gqa"), "keep", scratch / "model.sluice");
  std::set<std::string> purposes;
  int call = 0;
  while (true) {
    testing::FaultyMemory memory(call++);
    {
      Result<std::unique_ptr<Engine>> engine = Engine::Open(OptionsFor(path));
      if (engine.ok()) {
        EXPECT_LT(memory.calls(), call);  // none was left to fail
        EXPECT_TRUE(Answer(engine->get()).ok());
        // A running engine takes no more arenas: what it needs, it has.
        EXPECT_LT(memory.calls(), call);
        break;
      }
      const std::string message = engine.status().message();
      EXPECT_EQ(engine.status().code(), ErrorCode::kOutOfMemory) << message;
      EXPECT_THAT(message, HasSubstr("Cannot allocate memory"));
      purposes.insert(message.substr(0, message.find(": memory of")));
    }
    EXPECT_EQ(memory.mapped_bytes(), 0) << call;
  }
  EXPECT_THAT(purposes, ::testing::ElementsAre("KV cache", "activations", "logits",
                                               "weights that stay in memory"));
  Result<std::unique_ptr<Engine>> engine = Engine::Open(OptionsFor(path));
  ASSERT_TRUE(engine.ok());
  EXPECT_TRUE(Answer(engine->get()).ok());
}

}  // namespace
}  // namespace sluice
