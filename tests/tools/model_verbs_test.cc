// The verbs on tiny models, through the real program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <nlohmann/json.hpp>

#include "formats/npy.h"
#include "formats/sluice_writer.h"
#include "kernels/amx_support.h"
#include "kernels/select.h"
#include "tests/support/llama_directory.h"
#include "tests/support/program.h"
#include "tools/perplexity.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

Json Parsed(const ProgramResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  Json json = Json::parse(result.out, nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << result.out;
  return json;
}

Json Golden(const std::string& name) {
  return Json::parse(ReadTestFile(GoldenCheckpoint(name) + "/expected_greedy.json"));
}

void ExpectFailure(const ProgramResult& result, int exit_code, const std::string& code_name) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_THAT(result.err, HasSubstr("sluice: " + code_name + ": "));
}

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
  ExpectFailure(RunSluice({"run", LongContextModel(), "-p", "x", "-n", "20000", "--ignore-eos",
                           "--ctx", "30000"},
                          pipe),
                1, "I/O error");
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

TEST(Run, TwoAtOnceFromAnUnconvertedModelConvertItOnce) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::vector<std::string> words = {
      "run", GoldenCheckpoint("mha"), "-p", "x", "-n", "8", "--temp", "0"};
  auto other = std::async(std::launch::async, [&] { return RunSluice(words, cache); });
  const ProgramResult first = RunSluice(words, cache);
  const ProgramResult second = other.get();
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(first.out, second.out);
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "cache/models")) {
    EXPECT_NE(entry.path().extension(), ".partial");
    models += entry.path().extension() == ".sluice";
  }
  EXPECT_EQ(models, 1);
  EXPECT_THAT(RunSluice(words, cache).err, Not(HasSubstr("converting")));
}

TEST(Run, DamagedConversionInTheCacheIsMadeAnew) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::vector<std::string> words = {"run", GoldenCheckpoint("mha"), "-p", "x", "-n", "1"};
  ASSERT_EQ(RunSluice(words, cache).exit_code, 0);
  for (const auto& entry : std::filesystem::directory_iterator(scratch / "cache/models")) {
    if (entry.path().extension() == ".sluice") std::filesystem::resize_file(entry.path(), 1000);
  }
  const ProgramResult result = RunSluice(words, cache);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("converting"));
}

TEST(Run, CopyOfACheckpointIsNotConvertedAgainButAChangedOneIs) {
  const ScratchDirectory scratch;
  ProgramOptions cache;
  cache.environment = {{"SLUICE_CACHE", scratch / "cache"}};
  const std::string copy = scratch / "copy";
  std::filesystem::copy(GoldenCheckpoint("mha"), copy);
  const auto converts = [&cache](const std::string& model) {
    const ProgramResult result = RunSluice({"run", model, "-p", "x", "-n", "1"}, cache);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.err.find("converting") != std::string::npos;
  };
  EXPECT_TRUE(converts(GoldenCheckpoint("mha")));
  EXPECT_FALSE(converts(copy));
  WriteTestFile(copy + "/picture.png", "no part of the model");
  EXPECT_FALSE(converts(copy));
  // One bit of a weight; size and time stay.
  const std::string weights = copy + "/model.safetensors";
  const auto time = std::filesystem::last_write_time(weights);
  std::string bytes = ReadTestFile(weights);
  bytes[bytes.size() - 8] ^= 1;
  const std::string other = scratch / "other";
  std::filesystem::rename(copy, other);
  WriteTestFile(other + "/model.safetensors", bytes);
  std::filesystem::last_write_time(other + "/model.safetensors", time);
  EXPECT_TRUE(converts(other));
}

TEST(Convert, DoesNotReplaceWithoutForce) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "out.sluice", "precious");
  const std::vector<std::string> words = {"convert", GoldenCheckpoint("gqa"), "-o",
                                          scratch / "out.sluice"};
  ExpectFailure(RunSluice(words), 2, "invalid argument");
  EXPECT_EQ(ReadTestFile(scratch / "out.sluice"), "precious");
  std::vector<std::string> force = words;
  force.push_back("--force");
  EXPECT_EQ(RunSluice(force).exit_code, 0);
  EXPECT_EQ(RunSluice({"verify", scratch / "out.sluice"}).exit_code, 0);
}

TEST(Convert, FailureLeavesNothing) {
  const ScratchDirectory scratch;
  const std::string gguf =
      ReadTestFile(std::string(SLUICE_TEST_DATA_DIR) + "/golden/gguf/q4_1.gguf");
  WriteTestFile(scratch / "cut.gguf", gguf.substr(0, gguf.size() - 100));
  ExpectFailure(RunSluice({"convert", scratch / "cut.gguf", "-o", scratch / "out.sluice"}), 1,
                "truncated");
  ExpectFailure(RunSluice({"convert", GoldenCheckpoint("gqa"), "-o", scratch / "no/out.sluice"}), 1,
                "I/O error");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(scratch.path()))
    ++files;
  EXPECT_EQ(files, 1);
}

TEST(Verify, GoodFile) {
  const ProgramResult result = RunSluice({"verify", GoldenModel()});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("agree"));
}

TEST(Verify, ChecksCheckpointsOfEveryContainer) {
  for (const std::string& good :
       {GoldenCheckpoint("mha"), GoldenCheckpoint("sharded"), GoldenCheckpoint("gguf/q4_0.gguf")}) {
    const ProgramResult result = RunSluice({"verify", good});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("no checksums"));
  }
  const ScratchDirectory scratch;
  const std::string directory = scratch / "bad";
  testing::LlamaDirectory model;
  model.spoiled_tensor = "model.layers.1.mlp.up_proj.weight";
  model.spoiled_index = 3 * 64 + 5;
  model.spoiled_value = std::numeric_limits<float>::infinity();
  model.Write(directory);
  const ProgramResult infinite = RunSluice({"verify", directory});
  ExpectFailure(infinite, 1, "corrupt");
  EXPECT_THAT(infinite.err, HasSubstr("1 of 21 tensors are wrong"));
  EXPECT_THAT(infinite.out, HasSubstr("model.layers.1.mlp.up_proj.weight: row 3, column 5 is inf"));
  const std::string cut = scratch / "cut.gguf";
  const std::string bytes = ReadTestFile(GoldenCheckpoint("gguf/q4_0.gguf"));
  WriteTestFile(cut, bytes.substr(0, bytes.size() - 100));
  EXPECT_EQ(RunSluice({"verify", cut}).exit_code, 1);
  std::filesystem::remove(directory + "/tokenizer.json");
  ExpectFailure(RunSluice({"verify", directory}), 1, "not found");
}

TEST(Verify, NamesTensorAndOffsetOfEveryBadPiece) {
  const ScratchDirectory scratch;
  const Json catalogue = Parsed(RunSluice({"inspect", GoldenModel(), "--json"}));
  std::string bytes = ReadTestFile(GoldenModel());
  std::vector<std::string> names;
  for (size_t i : {size_t{0}, catalogue["tensors"].size() - 1}) {
    const Json& tensor = catalogue["tensors"][i];
    bytes[tensor["offset_bytes"].get<size_t>() + 1] ^= 0x10;
    names.push_back(tensor["name"]);
  }
  WriteTestFile(scratch / "bad.sluice", bytes);
  const ProgramResult result = RunSluice({"verify", scratch / "bad.sluice"});
  ExpectFailure(result, 1, "corrupt");
  for (const std::string& name : names) EXPECT_THAT(result.out, HasSubstr(name));
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 2) << result.out;
  EXPECT_THAT(result.err, HasSubstr("2 of"));
}

// A tensor of one tile of 4.3 MiB, which is one piece.
void WriteFileOfFiveChunks(const std::string& path) {
  SluiceContents contents;
  contents.config.architecture = "llama";
  contents.config.vocab_size = 20;
  contents.config.hidden_size = contents.config.intermediate_size = 40;
  contents.config.num_layers = 1;
  contents.config.num_heads = contents.config.num_kv_heads = 2;
  contents.config.head_dim = contents.config.rope.dim = 20;
  contents.config.context_length = 64;
  PlannedGroup group;
  group.tensors.push_back(
      {"wide", {WeightKind::kF32, WeightOffset::kNone, 0}, kTileRows, 16, 70000});
  contents.groups.push_back(group);
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(path, contents);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  ASSERT_EQ((*writer)->pieces().size(), 1u);
  const std::vector<std::byte> tiles((*writer)->LayoutOf(0).size_bytes, std::byte{7});
  ASSERT_TRUE((*writer)->WritePiece(0, tiles).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
}

TEST(Verify, NamesEveryBadChunkOfAPiece) {
  const ScratchDirectory scratch;
  const std::string path = scratch / "wide.sluice";
  WriteFileOfFiveChunks(path);
  EXPECT_THAT(RunSluice({"verify", path}).out, HasSubstr("5 chunks agree"));
  std::string bytes = ReadTestFile(path);
  const size_t begin = 4096, chunk = 1 << 20;
  bytes[begin + chunk] ^= 1;          // the first byte of the second chunk
  bytes[begin + 4 * chunk - 1] ^= 1;  // the last byte of the fourth
  bytes.back() ^= 1;                  // of the fifth
  WriteTestFile(path, bytes);
  const ProgramResult result = RunSluice({"verify", path});
  ExpectFailure(result, 1, "corrupt");
  EXPECT_THAT(result.err, HasSubstr("3 of 5 chunks"));
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 3) << result.out;
  for (const size_t wrong : {1, 3, 4}) {
    EXPECT_THAT(result.out, HasSubstr("tensor 'wide'"));
    EXPECT_THAT(result.out, HasSubstr("at offset " + std::to_string(begin + wrong * chunk) + " "));
  }
}

TEST(Inspect, EveryContainer) {
  for (const std::string& path :
       {GoldenModel(), GoldenCheckpoint("gqa"), GoldenCheckpoint("gqa") + "/model.safetensors",
        std::string(SLUICE_TEST_DATA_DIR) + "/golden/gguf/q4_0.gguf"}) {
    SCOPED_TRACE(path);
    const Json json = Parsed(RunSluice({"inspect", path, "--json"}));
    ASSERT_FALSE(json["tensors"].empty());
    const std::string name = json["tensors"][0]["name"];
    EXPECT_THAT(RunSluice({"inspect", path, "--tensors"}).out, HasSubstr("\n" + name + " "));
    EXPECT_THAT(RunSluice({"inspect", path}).out, StartsWith("container: "));
  }
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "text", "hello");
  ExpectFailure(RunSluice({"inspect", scratch / "text"}), 1, "corrupt");
}

TEST(Tokenize, ThereAndBack) {
  ProgramOptions options;
  options.stdin_text = "The tide turns now, \xc3\xa4 \xf0\x9f\x8c\x8a\n\nand <|eos|> is text.\n";
  const ProgramResult ids = RunSluice({"tokenize", GoldenModel(), "--no-special"}, options);
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 1);
  ProgramOptions back;
  back.stdin_text = ids.out;
  EXPECT_EQ(RunSluice({"tokenize", GoldenModel(), "--decode"}, back).out, options.stdin_text);
}

TEST(Tokenize, SpecialTokensOnlyOnRequest) {
  ProgramOptions options;
  options.stdin_text = "<|eos|>";
  EXPECT_EQ(RunSluice({"tokenize", GoldenModel(), "--no-special", "--parse-special"}, options).out,
            "1\n");
  const auto plain =
      ParseTokens(RunSluice({"tokenize", GoldenModel(), "--no-special"}, options).out);
  EXPECT_GT(plain->size(), 1u);
  const auto with_bos = ParseTokens(RunSluice({"tokenize", GoldenModel()}, options).out);
  EXPECT_EQ(with_bos->size(), plain->size() + 1);
  EXPECT_EQ(with_bos->front(), 0);
}

TEST(Tokenize, CheckpointsAndConversionsAgree) {
  ProgramOptions options;
  options.stdin_text = "The tide turns now";
  const ProgramResult of_file = RunSluice({"tokenize", GoldenModel()}, options);
  EXPECT_EQ(*ParseTokens(of_file.out),
            Golden("gqa")["prompts"][0]["prompt_ids"].get<std::vector<int32_t>>());
  EXPECT_EQ(RunSluice({"tokenize", GoldenCheckpoint("gqa")}, options).out, of_file.out);
}

TEST(Tokenize, OddInput) {
  ProgramOptions empty;
  EXPECT_EQ(RunSluice({"tokenize", GoldenModel(), "--no-special"}, empty).out, "\n");
  ProgramOptions invalid;
  invalid.stdin_text = "a\xff\xc3";
  EXPECT_EQ(RunSluice({"tokenize", GoldenModel()}, invalid).exit_code, 0);
  ProgramOptions ids;
  ids.stdin_text = "1 2 x";
  ExpectFailure(RunSluice({"tokenize", GoldenModel(), "--decode"}, ids), 2, "invalid argument");
  ids.stdin_text = "1 999999";
  ExpectFailure(RunSluice({"tokenize", GoldenModel(), "--decode"}, ids), 2, "invalid argument");
}

TEST(Eval, LogitsAreThoseOfTransformers) {
  const ScratchDirectory scratch;
  const std::string golden = GoldenCheckpoint("gqa");
  const ProgramResult result =
      RunSluice({"eval", GoldenModel(), "--tokens", golden + "/tokens.txt", "--logits",
                 scratch / "logits.npy", "--isa", "ref", "--kv", "f32"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto logits = ReadNpy(scratch / "logits.npy");
  const auto expected = ReadNpy(golden + "/expected_logits.npy");
  const auto positions = ReadNpy(golden + "/expected_positions.npy");
  ASSERT_TRUE(logits.ok() && expected.ok() && positions.ok());
  ASSERT_EQ(logits->shape, (std::vector<uint64_t>{2, 96, 307}));
  for (size_t sequence = 0; sequence < 2; ++sequence) {
    for (size_t i = 0; i < positions->ints.size(); ++i) {
      const float* actual = &logits->floats[(sequence * 96 + positions->ints[i]) * 307];
      const float* wanted = &expected->floats[(sequence * positions->ints.size() + i) * 307];
      for (size_t id = 0; id < 307; ++id) {
        const float difference = std::fabs(actual[id] - wanted[id]);
        ASSERT_TRUE(difference <= 1e-3f) << sequence << " " << i << " " << id << ": " << difference;
      }
    }
  }
}

TEST(Eval, PerplexityAgreesWithTheLogits) {
  const ScratchDirectory scratch;
  // Words of the tokenizer's own training text, so that the ids are ordinary.
  std::string text;
  for (int i = 0; i < 40; ++i) text += "The tide turns now. ";
  WriteTestFile(scratch / "text", text);
  const Json json = Parsed(RunSluice({"eval", GoldenModel(), "--text", scratch / "text", "--ctx",
                                      "64", "--windows", "3", "--isa", "ref", "--json"}));
  EXPECT_EQ(json["windows"], 3);
  EXPECT_EQ(json["tokens_scored"], 3 * 31);

  ProgramOptions options;
  options.stdin_text = text;
  const auto ids =
      *ParseTokens(RunSluice({"tokenize", GoldenModel(), "--no-special"}, options).out);
  const auto windows = *PerplexityWindows(ids, 0, 64, 3);
  std::string lines;
  for (const auto& window : windows) lines += FormatTokens(window) + "\n";
  WriteTestFile(scratch / "ids", lines);
  ASSERT_EQ(RunSluice({"eval", GoldenModel(), "--tokens", scratch / "ids", "--logits",
                       scratch / "logits.npy", "--isa", "ref"})
                .exit_code,
            0);
  const auto logits = ReadNpy(scratch / "logits.npy");
  double sum = 0;
  for (size_t w = 0; w < 3; ++w) {
    for (size_t position = 32; position <= 62; ++position) {
      const float* row = &logits->floats[(w * 64 + position) * 307];
      double total = 0;
      for (size_t id = 0; id < 307; ++id) total += std::exp(static_cast<double>(row[id]));
      sum += std::log(total) - row[windows[w][position + 1]];
    }
  }
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(sum / 93), 1e-6);
}

TEST(Eval, BadInput) {
  const ScratchDirectory scratch;
  WriteTestFile(scratch / "short", "The tide");
  ExpectFailure(RunSluice({"eval", GoldenModel(), "--text", scratch / "short", "--ctx", "64"}), 2,
                "invalid argument");
  WriteTestFile(scratch / "ids", "1 2 307\n");
  ExpectFailure(RunSluice({"eval", GoldenModel(), "--tokens", scratch / "ids", "--logits",
                           scratch / "out.npy"}),
                2, "invalid argument");
  EXPECT_FALSE(std::filesystem::exists(scratch / "out.npy"));
}

TEST(Synth, UnknownShapeNamesTheKnownOnes) {
  const ScratchDirectory scratch;
  const ProgramResult result =
      RunSluice({"synth", "--shape", "cube", "-o", scratch / "out.sluice"});
  ExpectFailure(result, 2, "invalid argument");
  EXPECT_THAT(result.err, HasSubstr("smollm2-135m"));
}

TEST(Chat, PipedConversation) {
  ProgramOptions options;
  options.stdin_text = "Hello\n\"\"\"two\nlines\"\"\"\n/stats\n/undo\n/bye\nnever read\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "-n", "4", "--temp", "0"}, options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("messages of yours"));
  EXPECT_THAT(result.err, HasSubstr("cached"));
  EXPECT_FALSE(result.out.empty());
}

TEST(Chat, SaveAndLoad) {
  const ScratchDirectory scratch;
  ProgramOptions options;
  options.stdin_text = "Hello\n/save " + scratch.path() + "/chat.json\n/clear\n/load " +
                       scratch.path() + "/chat.json\n/regen\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "-n", "4", "--temp", "0", "--system", "Be kind."}, options);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const Json json = Json::parse(ReadTestFile(scratch / "chat.json"));
  ASSERT_EQ(json["messages"].size(), 3u);
  EXPECT_EQ(json["messages"][0]["content"], "Be kind.");
  EXPECT_EQ(json["messages"][1]["content"], "Hello");
  // Greedy: the second answer to the same messages is the first one.
  const std::string answer = json["messages"][2]["content"].get<std::string>() + "\n";
  EXPECT_EQ(result.out, answer + answer);
}

TEST(Chat, FullContextIsSaidAndFails) {
  ProgramOptions options;
  for (int i = 0; i < 30; ++i) options.stdin_text += "The tide turns now, and now again\n";
  const ProgramResult result =
      RunSluice({"chat", GoldenModel(), "--ignore-eos", "-n", "20"}, options);
  ExpectFailure(result, 1, "limit exceeded");
  EXPECT_THAT(result.err, HasSubstr("the context is full"));
}

TEST(Chat, UnknownCommandFailsWhereNobodyCanReadIt) {
  ProgramOptions options;
  options.stdin_text = "/fly\n";
  ExpectFailure(RunSluice({"chat", GoldenModel()}, options), 2, "invalid argument");
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
