// `sluice tokenize` and `eval`: ids, logits and perplexity of known text.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "formats/npy.h"
#include "tests/support/json_output.h"
#include "tests/support/program.h"
#include "tools/perplexity.h"
#include "tools/token_lines.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

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

}  // namespace
}  // namespace sluice
