// The command line itself: help, wrong usage, environment variables, standard streams.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include "tests/support/program.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::vector<std::string> kVerbs = {"run",    "chat",       "convert", "inspect", "verify",
                                         "eval",   "tokenize",   "synth",   "bench",   "plan",
                                         "doctor", "completion", "version"};

int Lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

// One line on stderr, nothing on stdout.
void ExpectRefusal(const ProgramResult& result, int exit_code, const std::string& code_name) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_THAT(result.err, StartsWith("sluice: " + code_name + ": "));
  EXPECT_EQ(Lines(result.err), 1) << result.err;
  EXPECT_EQ(result.out, "");
}

TEST(CommandLine, HelpListsEveryVerb) {
  const ProgramResult result = RunSluice({"--help"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  for (const std::string& verb : kVerbs) EXPECT_THAT(result.out, HasSubstr("\n  " + verb));
  for (const char* later : {"serve"}) {
    EXPECT_THAT(result.out, ::testing::Not(HasSubstr(std::string("\n  ") + later)));
  }
}

TEST(CommandLine, HelpOfEveryVerbHasExamplesAndEnvironmentVariables) {
  for (const std::string& verb : kVerbs) {
    const ProgramResult result = RunSluice({verb, "--help"});
    EXPECT_EQ(result.exit_code, 0) << verb;
    EXPECT_THAT(result.out, HasSubstr("Examples:\n"));
    EXPECT_THAT(result.out, HasSubstr("sluice " + verb));
    if (verb != "completion") {
      EXPECT_THAT(result.out, HasSubstr("SLUICE_"));
    }
  }
}

TEST(CommandLine, WrongUsageIsOneLineAndExitCodeTwo) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"fly"},
      {"run"},
      {"run", "model", "--no-such-option"},
      {"run", "model", "extra", "-p", "x"},
      {"run", "model", "-p"},
      {"run", "model", "-p", "x", "-f", "y"},
      {"run", "model", "-p", "x", "--raw", "--system", "y"},
      {"run", "model", "-p", "x", "--logprobs", "3"},
      {"run", "model", "-p", "x", "--json", "--logprobs", "101"},
      {"run", "model", "-p", "x", "--threads", "0"},
      {"run", "model", "-p", "x", "--threads", "two"},
      {"run", "model", "-p", "x", "--threads", "99999999999999999999"},
      {"run", "model", "-p", "x", "--ctx", "0"},
      {"run", "model", "-p", "x", "--ctx", "-5"},
      {"run", "model", "-p", "x", "--ctx", "12x"},
      {"run", "model", "-p", "x", "--ram", "0"},
      {"run", "model", "-p", "x", "--ram", "1Q"},
      {"run", "model", "-p", "x", "--ram", "-1G"},
      {"run", "model", "-p", "x", "--ram", "G"},
      {"run", "model", "-p", "x", "--ram", "99999999T"},
      {"run", "model", "-p", "x", "--temp", "nan"},
      {"run", "model", "-p", "x", "--temp", "-1"},
      {"run", "model", "-p", "x", "--temp", "inf"},
      {"run", "model", "-p", "x", "--top-p", "0"},
      {"run", "model", "-p", "x", "--top-p", "1.5"},
      {"run", "model", "-p", "x", "--top-k", "-1"},
      {"run", "model", "-p", "x", "--top-k", "1.5"},
      {"run", "model", "-p", "x", "--min-p", "2"},
      {"run", "model", "-p", "x", "--repeat-penalty", "0"},
      {"run", "model", "-p", "x", "--presence-penalty", "3"},
      {"run", "model", "-p", "x", "--seed", "-1"},
      {"run", "model", "-p", "x", "--seed", "18446744073709551616"},
      {"run", "model", "-p", "x", "--logit-bias", "5"},
      {"run", "model", "-p", "x", "--logit-bias", "5=nan"},
      {"run", "model", "-p", "x", "--logit-bias", "-1=2"},
      {"run", "model", "-p", "x", "--stop", ""},
      {"run", "model", "-p", "x", "-n", "-2"},
      {"run", "model", "-p", "x", "--temp", "1", "--temp", "2"},
      {"convert", "source"},
      {"convert", "source", "-o", "x.sluice", "--quant", "int3"},
      {"eval", "model"},
      {"eval", "model", "--tokens", "x"},
      {"eval", "model", "--logits", "x"},
      {"eval", "model", "--text", "x", "--windows", "0"},
      {"tokenize", "model", "--decode", "--no-special"},
      {"completion", "tcsh"},
      {"synth", "-o", "x.sluice"},
  };
  for (const std::vector<std::string>& words : wrong) {
    SCOPED_TRACE(::testing::PrintToString(words));
    ExpectRefusal(RunSluice(words), 2, "invalid argument");
  }
}

TEST(CommandLine, UnknownValueNamesTheOnesThatAreKnown) {
  for (const char* kv : {"int8", "fp8", ""}) {
    const ProgramResult result = RunSluice({"run", "model", "-p", "x", "--kv", kv});
    ExpectRefusal(result, 2, "invalid argument");
    EXPECT_THAT(result.err, HasSubstr("f32"));
    EXPECT_THAT(result.err, HasSubstr("f16"));
  }
  const ProgramResult io = RunSluice({"run", "model", "-p", "x", "--io", "floppy"});
  ExpectRefusal(io, 2, "invalid argument");
  EXPECT_THAT(io.err, HasSubstr("pread"));
}

TEST(CommandLine, MalformedEnvironmentVariableIsNamed) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"SLUICE_THREADS", "many"},
                                                        {"SLUICE_RAM", "4X"},
                                                        {"SLUICE_TOP_P", "2"},
                                                        {"SLUICE_KV", "int8"},
                                                        {"SLUICE_JSON", "perhaps"}}) {
    ProgramOptions options;
    options.environment = {{name, value}};
    const ProgramResult result = RunSluice({"run", "model", "-p", "x"}, options);
    ExpectRefusal(result, 2, "invalid argument");
    EXPECT_THAT(result.err, HasSubstr(name));
  }
}

TEST(CommandLine, CommandLineWinsOverEnvironment) {
  ProgramOptions options;
  options.environment = {{"SLUICE_THREADS", "many"}, {"SLUICE_PROMPT", "from the environment"}};
  // Passes the options, and fails at the model.
  const ProgramResult result =
      RunSluice({"run", "/no/such/model", "--threads", "1", "-p", "x"}, options);
  ExpectRefusal(result, 1, "not found");
}

TEST(CommandLine, EnvironmentOfAnotherVerbIsNotRead) {
  ProgramOptions options;
  options.environment = {{"SLUICE_THREADS", "many"}, {"SLUICE_CTX", "x"}};
  EXPECT_EQ(RunSluice({"version"}, options).exit_code, 0);
}

TEST(CommandLine, FullDiskOnStdoutFails) {
  ProgramOptions options;
  options.stdout_path = "/dev/full";
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--help"}, {"version"}, {"completion", "bash"}}) {
    const ProgramResult result = RunSluice(words, options);
    ExpectRefusal(result, 1, "I/O error");
  }
}

TEST(CommandLine, ClosedStdoutFails) {
  ProgramOptions options;
  options.close_stdout = true;
  ExpectRefusal(RunSluice({"version"}, options), 1, "I/O error");
}

TEST(CommandLine, VersionAsJson) {
  const ProgramResult result = RunSluice({"version", "--json"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("\"version\": \""));
  EXPECT_THAT(RunSluice({"--version"}).out, StartsWith("sluice "));
}

TEST(CommandLine, InterruptWhileWaitingForThePrompt) {
  ProgramOptions options;
  options.keep_stdin_open = true;
  options.on_first_message = [](pid_t child) { kill(child, SIGINT); };
  // An option that prints nothing would leave no moment to interrupt: the loading does.
  const ProgramResult result = RunSluice({"chat", GoldenModel()}, options);
  EXPECT_EQ(result.exit_code, 130);
}

}  // namespace
}  // namespace sluice
