// `sluice run` on tiny models, through the real program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "kernels/amx_support.h"
#include "kernels/select.h"
#include "tests/support/json_output.h"
#include "tests/support/program.h"
#include "tests/support/sanitized.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Run, GreedyAnswerIsTheOneOfTransformers) {
  const Json golden = Golden("gqa");
  ASSERT_FALSE(golden["prompts"].empty());
  for (const Json& prompt : golden["prompts"]) {
    const Json json =
        Parsed(RunSluice({"run", GoldenModel(), "--raw", "-p", prompt["text"].get<std::string>(),
                          "--temp", "0", "-n", "24", "--isa", "ref", "--kv", "f32", "--json"}));
    const auto expected = prompt["next_ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(json["tokens"].get<std::vector<int32_t>>(),
              std::vector<int32_t>(expected.begin(), expected.begin() + 24));
    EXPECT_EQ(json["prompt_tokens"], prompt["prompt_ids"].size());
    EXPECT_EQ(json["finish_reason"], "length");
  }
}

TEST(Run, JsonHasTheKeysOfTheContract) {
  const Json json = Parsed(RunSluice({"run", GoldenModel(), "-p", "The tide", "-n", "4", "--seed",
                                      "7", "--json", "--logprobs", "2"}));
  EXPECT_TRUE(json["text"].is_string());
  for (const char* key :
       {"load_s", "prefill_s", "prefill_tokens_per_s", "decode_s", "decode_tokens_per_s"}) {
    EXPECT_TRUE(json["timings"][key].is_number()) << key;
  }
  ASSERT_TRUE(json["tiers"].is_object());
  EXPECT_FALSE(json["tiers"].empty());
  for (const auto& [name, tier] : json["tiers"].items()) {
    for (const char* key : {"resident_bytes", "read_bytes", "stall_s"}) {
      EXPECT_TRUE(tier[key].is_number()) << name << "." << key;
    }
  }
  ASSERT_EQ(json["logprobs"].size(), json["tokens"].size());
  for (const Json& token : json["logprobs"]) {
    EXPECT_LE(token["logprob"].get<double>(), 0);
    ASSERT_EQ(token["top"].size(), 2u);
    EXPECT_GE(token["top"][0]["logprob"], token["top"][1]["logprob"]);
  }
}

TEST(Run, StreamedTextIsTheTextOfTheJsonObject) {
  const std::vector<std::string> words = {"run", GoldenModel(), "-p",     "The tide",
                                          "-n",  "16",          "--seed", "7"};
  std::vector<std::string> with_json = words;
  with_json.push_back("--json");
  const ProgramResult streamed = RunSluice(words);
  EXPECT_EQ(streamed.exit_code, 0) << streamed.err;
  EXPECT_EQ(streamed.out, Parsed(RunSluice(with_json))["text"].get<std::string>() + "\n");
  // What was chosen, and the timings.
  EXPECT_THAT(streamed.err, HasSubstr("isa "));
  EXPECT_THAT(streamed.err, HasSubstr("tokens/s"));
  EXPECT_THAT(streamed.err, HasSubstr(" of 128"));
  EXPECT_THAT(streamed.err, Not(HasSubstr("\x1b")));
  std::vector<std::string> quiet = words;
  quiet.push_back("--quiet");
  EXPECT_EQ(RunSluice(quiet).err, "");
}

TEST(Run, PromptFromOptionFileStdinAndEnvironmentIsTheSame) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "prompt", "The tide");
  const std::vector<std::string> words = {"run", GoldenModel(), "-n", "8", "--temp", "0"};
  const auto with = [&](std::vector<std::string> more, const ProgramOptions& options) {
    more.insert(more.begin(), words.begin(), words.end());
    const ProgramResult result = RunSluice(more, options);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  const std::string expected = with({"-p", "The tide"}, {});
  EXPECT_EQ(with({"-f", scratch / "prompt"}, {}), expected);
  ProgramOptions stdin_options;
  stdin_options.stdin_text = "The tide";
  EXPECT_EQ(with({}, stdin_options), expected);
  ProgramOptions environment;
  environment.environment = {{"SLUICE_PROMPT", "The tide"}, {"SLUICE_MAX_TOKENS", "100"}};
  EXPECT_EQ(with({}, environment), expected);
}

TEST(Run, PromptIsTakenVerbatim) {
  for (const char* text : {"[a,b]", "--json", "-x", "", "{}", "a,b", "%HELP%"}) {
    const Json json = Parsed(
        RunSluice({"run", GoldenModel(), "--raw", "-p", text, "-n", "1", "--json", "--quiet"}));
    ProgramOptions options;
    options.stdin_text = text;
    const ProgramResult ids = RunSluice({"tokenize", GoldenModel()}, options);
    EXPECT_EQ(json["prompt_tokens"], ParseTokens(ids.out)->size()) << text;
  }
}

TEST(Run, SystemMessageMakesThePromptLonger) {
  const std::vector<std::string> words = {"run", GoldenModel(), "-p", "x", "-n", "1", "--json"};
  std::vector<std::string> with_system = words;
  with_system.insert(with_system.end(), {"--system", "Be kind."});
  EXPECT_GT(Parsed(RunSluice(with_system))["prompt_tokens"],
            Parsed(RunSluice(words))["prompt_tokens"]);
}

TEST(Run, StopStringEndsTheAnswerBeforeIt) {
  const std::vector<std::string> words = {"run", GoldenModel(), "-p", "The tide", "-n",
                                          "40",  "--temp",      "0",  "--json"};
  const std::string text = Parsed(RunSluice(words))["text"];
  ASSERT_GT(text.size(), 8u);
  size_t begin = text.size() / 2;
  while ((static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
  const std::string stop = text.substr(begin, 3);
  std::vector<std::string> with_stop = words;
  with_stop.insert(with_stop.end(), {"--stop", "never there", "--stop", stop});
  const Json json = Parsed(RunSluice(with_stop));
  EXPECT_EQ(json["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(json["finish_reason"], "stop");
}

TEST(Run, LogitBiasForcesAToken) {
  const Json json = Parsed(RunSluice({"run", GoldenModel(), "-p", "x", "-n", "3", "--temp", "0",
                                      "--logit-bias", "70=100", "--json"}));
  EXPECT_EQ(json["tokens"], Json::array({70, 70, 70}));
}

TEST(Run, PromptLongerThanTheContextIsAnErrorWithBothNumbers) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "The tide turns now. ";
  ProgramOptions options;
  options.stdin_text = text;
  const ProgramResult result = RunSluice({"run", GoldenModel(), "--raw"}, options);
  ExpectFailure(result, 1, "limit exceeded");
  EXPECT_THAT(result.err, HasSubstr("128"));
  EXPECT_EQ(result.out, "");
}

TEST(Run, BadModels) {
  const ScratchDirectory scratch;
  const std::string good = ReadTestFile(GoldenModel());
  WriteTestFile(scratch / "text.sluice", "not a model");
  WriteTestFile(scratch / "cut.sluice", good.substr(0, good.size() / 2));
  std::string flipped = good;
  flipped[flipped.size() - 5000] ^= 1;
  WriteTestFile(scratch / "flipped.sluice", flipped);
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  for (const std::string name : {"text.sluice", "cut.sluice", "flipped.sluice"}) {
    const ProgramResult result = RunSluice({"run", scratch / name, "-p", "x"}, cache);
    EXPECT_EQ(result.exit_code, 1) << name << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(name));
    EXPECT_EQ(result.out, "");
  }
  ExpectFailure(RunSluice({"run", scratch / "none", "-p", "x"}, cache), 1, "not found");
}

std::string WithArchitecture(const ScratchDirectory& scratch, const std::string& name) {
  const std::string directory = scratch / name;
  std::filesystem::copy(GoldenCheckpoint("gqa"), directory);
  Json config = Json::parse(ReadTestFile(directory + "/config.json"));
  config["architectures"] = {name};
  config["model_type"] = name;
  WriteTestFile(directory + "/config.json", config.dump());
  return directory;
}

TEST(Run, UnknownArchitectureIsRefused) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::string model = WithArchitecture(scratch, "mystery9");
  for (const std::vector<std::string>& words : {std::vector<std::string>{"run", model, "-p", "x"},
                                                {"convert", model, "-o", scratch / "out.sluice"},
                                                {"inspect", model}}) {
    const ProgramResult result = RunSluice(words, cache);
    ExpectFailure(result, 3, "unsupported");
    EXPECT_THAT(result.err, HasSubstr("mystery9"));
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "out.sluice"));
}

TEST(Run, BudgetThatIsTooSmallIsRefused) {
  const ProgramResult result = RunSluice({"run", GoldenModel(), "-p", "x", "--ram", "4K"});
  ExpectFailure(result, 3, "does not fit");
}

TEST(Run, InstructionSetThatIsNotThereIsRefused) {
  const ProgramResult result = RunSluice({"run", GoldenModel(), "-p", "x", "--isa", "amx"});
  if (SelectTable("amx").ok()) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
  } else {
    ExpectFailure(result, 3, "unsupported");
    EXPECT_THAT(result.err, HasSubstr(Describe(AmxOfThisMachine())));
  }
}

TEST(Run, PrefillInBf16IsSaidOrRefusedWithTheReason) {
  const std::vector<std::string> words = {"run",   GoldenModel(), "-p",        "The tide",
                                          "-n",    "8",           "--temp",    "0",
                                          "--isa", "ref",         "--prefill", "bf16"};
  const ProgramResult result = RunSluice(words);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("prefill in bf16"));
  std::vector<std::string> with_json = words;
  with_json.push_back("--json");
  EXPECT_EQ(Parsed(RunSluice(with_json))["prefill"], "bf16");
  std::vector<std::string> avx2 = words;
  avx2[9] = "avx2";
  const ProgramResult refused = RunSluice(avx2);
  ExpectFailure(refused, 3, "unsupported");
  EXPECT_THAT(refused.err, HasSubstr(SelectTable("avx2").ok() ? "no products in bf16" : "avx2"));
  ProgramOptions environment;
  environment.environment = {{"SLUICE_PREFILL", "bf8"}};
  const ProgramResult unknown = RunSluice({"run", GoldenModel(), "-p", "x"}, environment);
  ExpectFailure(unknown, 2, "invalid argument");
  EXPECT_THAT(unknown.err, HasSubstr("SLUICE_PREFILL"));
}

TEST(Run, FullDiskAndClosedPipeFail) {
  ProgramOptions full;
  full.stdout_path = "/dev/full";
  ExpectFailure(RunSluice({"run", GoldenModel(), "-p", "x", "-n", "4"}, full), 1, "I/O error");
  ExpectFailure(RunSluice({"run", GoldenModel(), "-p", "x", "-n", "4", "--json"}, full), 1,
                "I/O error");
  ProgramOptions pipe;
  pipe.stop_reading = true;
  const ProgramResult unread = RunSluice({"run", LongContextModel(), "-p", "x", "-n", "20000",
                                          "--ignore-eos", "--ctx", "30000", "--quiet"},
                                         pipe);
  EXPECT_EQ(unread.exit_code, 1);
  EXPECT_EQ(unread.err, "") << "who ends reading knows it";
  ProgramOptions closed;
  closed.close_stdout = true;
  ExpectFailure(RunSluice({"run", GoldenModel(), "-p", "x", "-n", "4"}, closed), 1, "I/O error");
}

TEST(Run, InterruptStopsTheAnswerAndKeepsWhatWasSaid) {
  ProgramOptions options;
  options.on_first_output = [](pid_t child) { kill(child, SIGINT); };
  const ProgramResult result = RunSluice({"run", LongContextModel(), "-p", "The tide", "-n",
                                          "90000", "--ignore-eos", "--ctx", "100000"},
                                         options);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_FALSE(result.out.empty());
  EXPECT_THAT(result.err, HasSubstr("tokens/s"));
  EXPECT_THAT(result.err, HasSubstr("sluice: cancelled: "));
}

TEST(Run, InterruptedJsonSaysCancelled) {
  ProgramOptions options;
  // The first message is printed after loading, before the prompt is computed.
  options.on_first_message = [](pid_t child) {
    usleep(300'000);
    kill(child, SIGINT);
  };
  const ProgramResult result = RunSluice({"run", LongContextModel(), "-p", "The tide", "-n",
                                          "99000", "--ignore-eos", "--ctx", "100000", "--json"},
                                         options);
  EXPECT_EQ(result.exit_code, 130) << result.err;
  const Json json = Json::parse(result.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << result.out;
  EXPECT_EQ(json["finish_reason"], "cancelled");
}

// Of tools/quickstart.sh; a test has no network to fetch it.
std::string DemoModel() {
  const char* demo = std::getenv("SLUICE_DEMO_DIR");
  const char* home = std::getenv("HOME");
  const std::string directory =
      demo != nullptr ? demo : std::string(home == nullptr ? "" : home) + "/.cache/sluice/demo";
  return directory + "/SmolLM2-135M-Instruct.sluice";
}

TEST(Demo, KnowsTheCapitalOfFrance) {
  if (test::kSanitized) GTEST_SKIP() << "half a minute with a sanitizer; the release build answers";
  if (!std::filesystem::exists(DemoModel())) GTEST_SKIP() << DemoModel() << " is not there";
  const Json json =
      Parsed(RunSluice({"run", DemoModel(), "-p", "What is the capital of France?", "--temp", "0",
                        "-n", "32", "--ctx", "256", "--json", "--isa", "ref", "--kv", "f32"}));
  // What transformers answers from the same file in float32.
  EXPECT_EQ(json["text"], "The capital of France is Paris.");
  EXPECT_EQ(json["finish_reason"], "stop");
}

}  // namespace
}  // namespace sluice
