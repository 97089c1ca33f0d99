// MODEL arguments as people give them, and the cache of conversions where it cannot be written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/support/checkpoint_copy.h"
#include "tests/support/llama_directory.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The program with a cache of its own.
class ModelArgument : public ::testing::Test {
 protected:
  ModelArgument() { options_.environment = {{"SLUICE_CACHE", cache_ / "cache"}}; }

  ProgramResult Run(const std::string& model) {
    return RunSluice({"run", model, "-p", "x", "-n", "1", "--temp", "0"}, options_);
  }
  bool Converts(const std::string& model) {
    const ProgramResult result = Run(model);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.err.find("converting") != std::string::npos;
  }
  std::vector<std::string> Conversions() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(cache_ / "cache/models")) {
      if (entry.path().extension() == ".sluice") names.push_back(entry.path().filename());
    }
    return names;
  }

  const ScratchDirectory cache_;
  ProgramOptions options_;
};

TEST_F(ModelArgument, LinksAndOddNamesAreTheFilesThatTheyLeadTo) {
  CheckpointCopy copy("mha");
  const ScratchDirectory scratch;
  const std::string odd = scratch / "Qwen 2.5-7B \xc3\xa9\xe4\xb8\xad";
  fs::create_directory_symlink(copy.path(), odd);
  EXPECT_TRUE(Converts(odd));
  EXPECT_FALSE(Converts(copy.path()));
  EXPECT_FALSE(Converts(odd + "/"));
}

TEST_F(ModelArgument, TheConversionIsCalledAfterTheWholeNameOfADirectory) {
  CheckpointCopy copy("mha");
  const ScratchDirectory scratch;
  fs::copy(copy.path(), scratch / "Qwen2.5-7B");
  EXPECT_TRUE(Converts(scratch / "Qwen2.5-7B"));
  ASSERT_EQ(Conversions().size(), 1u);
  EXPECT_THAT(Conversions()[0], ::testing::StartsWith("Qwen2.5-7B-"));
}

TEST_F(ModelArgument, ALongNameIsCutBetweenCharacters) {
  CheckpointCopy copy("mha");
  const ScratchDirectory scratch;
  std::string name = "x";  // 3 bytes each: the cut at 100 would fall into one, with one before
  for (int i = 0; i < 60; ++i) name += "\xe4\xb8\xad";
  fs::copy(copy.path(), scratch / name);
  EXPECT_TRUE(Converts(scratch / name));
  ASSERT_EQ(Conversions().size(), 1u);
  EXPECT_THAT(Conversions()[0], ::testing::StartsWith(name.substr(0, 100) + "-"));
}

TEST_F(ModelArgument, ALinkThatLeadsNowhereAndIsNotNeededIsNoHindrance) {
  CheckpointCopy copy("mha");
  fs::create_symlink("/nowhere", copy.path() + "/consolidated.safetensors");
  EXPECT_TRUE(Converts(copy.path()));
}

TEST_F(ModelArgument, ATemplateInTheDirectoryOfTemplatesIsPartOfTheContent) {
  CheckpointCopy copy("mha");
  EXPECT_TRUE(Converts(copy.path()));
  fs::create_directory(copy.path() + "/additional_chat_templates");
  EXPECT_FALSE(Converts(copy.path()));
  copy.Write("additional_chat_templates/tool_use.jinja", "t");
  EXPECT_TRUE(Converts(copy.path()));
  copy.Write("additional_chat_templates/tool_use.jinja", "u");
  EXPECT_TRUE(Converts(copy.path()));
  EXPECT_FALSE(Converts(copy.path()));
}

TEST_F(ModelArgument, PartsOfACheckpointAreRefusedWithTheCure) {
  for (const char* part : {"model.safetensors.index.json", "model-00002-of-00004.safetensors",
                           "config.json", "tokenizer.json"}) {
    const ProgramResult result = Run(GoldenCheckpoint("sharded") + "/" + part);
    EXPECT_EQ(result.exit_code, 3) << result.err;
    EXPECT_THAT(result.err, AllOf(HasSubstr(part), HasSubstr("give the directory")));
  }
}

TEST_F(ModelArgument, ACacheThatCannotBeWrittenIsNamedWithTheCure) {
  options_.environment = {{"SLUICE_CACHE", "/proc/sluice"}};
  const ProgramResult result = Run(GoldenCheckpoint("mha"));
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("/proc/sluice"), HasSubstr("SLUICE_CACHE names")));
}

TEST_F(ModelArgument, InterruptedInTheMiddleItGoesOnTheNextTime) {
  const ScratchDirectory scratch;
  testing::LlamaDirectory model;
  model.hidden = 512;
  model.heads = 8;
  model.ffn = 4096;
  model.layers = 8;
  model.sparse = true;
  model.Write(scratch / "model");
  options_.on_first_message = [](pid_t process) { kill(process, SIGINT); };
  const ProgramResult first = Run(scratch / "model");
  EXPECT_EQ(first.exit_code, 130) << first.err;
  EXPECT_THAT(first.err, AllOf(HasSubstr("converting"), HasSubstr("the same command goes on")));
  EXPECT_TRUE(Conversions().empty());
  options_.on_first_message = nullptr;
  EXPECT_TRUE(Converts(scratch / "model"));
  EXPECT_EQ(Conversions().size(), 1u);
  for (const auto& entry : fs::directory_iterator(cache_ / "cache/models")) {
    EXPECT_THAT(entry.path().filename().string(), ::testing::Not(HasSubstr("partial")));
  }
}

// What a read-only cache holds is used.
TEST_F(ModelArgument, AConversionThatIsThereNeedsNoWriting) {
  ASSERT_TRUE(Converts(GoldenCheckpoint("mha")));
  const std::string models = cache_ / "cache/models";
  for (const auto& entry : fs::directory_iterator(models)) {
    if (entry.path().extension() != ".sluice") fs::remove(entry.path());
  }
  // A name that is taken by a directory cannot be created, also not by a privileged user.
  const std::string conversion = Conversions().at(0);
  const std::string key = conversion.substr(conversion.rfind('-') + 1, 16);
  fs::create_directory(models + "/" + key + ".lock");
  EXPECT_FALSE(Converts(GoldenCheckpoint("mha")));
  fs::remove(models + "/" + conversion);
  const ProgramResult result = Run(GoldenCheckpoint("mha"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr(key + ".lock"), HasSubstr("SLUICE_CACHE names")));
}

}  // namespace
}  // namespace sluice
