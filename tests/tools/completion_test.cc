// What `sluice completion SHELL` prints, read by that shell.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "tests/support/program.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct ShellResult {
  int exit_code;
  std::string output;  // of stdout and stderr
};

ShellResult Shell(const std::string& command) {
  ShellResult result = {-1, ""};
  FILE* pipe = popen(("{ " + command + " ; } 2>&1 </dev/null").c_str(), "r");
  if (pipe == nullptr) return result;
  std::array<char, 4096> buffer;
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), count);
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

class Completion : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (Shell("command -v " + shell_).exit_code != 0) GTEST_SKIP() << shell_ << " is not installed";
    const ProgramResult script = RunSluice({"completion", shell_});
    ASSERT_EQ(script.exit_code, 0) << script.err;
    path_ = scratch_ / ("sluice." + shell_);
    WriteTestFile(path_, script.out);
  }

  // What the shell offers behind these words, the last of which is unfinished.
  std::string Offered(const std::string& words) const {
    if (shell_ == "fish") {
      return Shell("fish --no-config -c 'source " + path_ + "; complete -C \"" + words + "\"'")
          .output;
    }
    return Shell("bash -c 'source " + path_ + "; COMP_WORDS=(" + words +
                 "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _sluice; echo \"${COMPREPLY[@]}\"'")
        .output;
  }

  const std::string shell_ = GetParam();
  ScratchDirectory scratch_;
  std::string path_;
};

TEST_P(Completion, TheScriptIsGoodSyntax) {
  const ShellResult result = Shell(shell_ + " -n " + path_);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.output, "");
}

TEST_P(Completion, ASpoiledScriptIsFoundBad) {
  WriteTestFile(path_, ReadTestFile(path_) + "\nif true\n(((\n");
  EXPECT_NE(Shell(shell_ + " -n " + path_).exit_code, 0);
}

TEST_P(Completion, VerbsAndValuesAreOffered) {
  if (shell_ == "zsh") {
    // Its completion runs in the line editor only; that the function is registered is what a
    // script sees.
    const ShellResult result = Shell("zsh -fc 'autoload -U compinit; compinit -D; source " + path_ +
                                     "; print -r -- $_comps[sluice]; whence -w _sluice'");
    EXPECT_EQ(result.output, "_sluice\n_sluice: function\n");
    return;
  }
  EXPECT_THAT(Offered("sluice ver"), HasSubstr("verify"));
  EXPECT_THAT(Offered("sluice ver"), HasSubstr("version"));
  EXPECT_THAT(Offered("sluice ver"), Not(HasSubstr("convert")));
  const std::string empty = shell_ == "bash" ? "\"\"" : "";
  EXPECT_THAT(Offered("sluice run --isa " + empty), HasSubstr("avx2"));
  EXPECT_THAT(Offered("sluice completion " + empty), HasSubstr("fish"));
  EXPECT_THAT(Offered("sluice run --json --is"), HasSubstr("--isa")) << "a flag takes no value";
}

INSTANTIATE_TEST_SUITE_P(Shells, Completion, ::testing::Values("bash", "zsh", "fish"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sluice
