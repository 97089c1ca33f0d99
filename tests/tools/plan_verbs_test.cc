// plan, doctor and bench as their user calls them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/support/golden_model.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

class PlanVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.environment = {{"SLUICE_CACHE", scratch_ / "cache"}};
    golden_ = testing::LoadGolden("gqa");
    model_ = testing::ConvertGolden(golden_, "auto", scratch_ / "model.sluice");
  }
  ProgramResult Sluice(const std::vector<std::string>& words) { return RunSluice(words, options_); }

  ScratchDirectory scratch_;
  ProgramOptions options_;
  testing::GoldenModel golden_;
  std::string model_;
};

TEST_F(PlanVerbs, AFileItsCheckpointAndItsConfigurationGiveTheSamePlan) {
  std::vector<Json> plans;
  for (const std::string& source :
       {model_, golden_.source_path, golden_.source_path + "/config.json"}) {
    const ProgramResult result = Sluice({"plan", source, "--json", "--quiet", "--isa", "ref"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    plans.push_back(Json::parse(result.out));
  }
  for (const Json& plan : plans) {
    EXPECT_EQ(plan["parameters"], plans[0]["parameters"]);
    EXPECT_EQ(plan["kv_bytes_per_token"], plans[0]["kv_bytes_per_token"]);
    EXPECT_GT(plan["decode"]["tokens_per_s"], 0.0);
    EXPECT_EQ(plan["runs"], true);
  }
  // Norms of the checkpoint are float32, those of a bare configuration are taken to be 16 bits.
  EXPECT_EQ(plans[1]["weight_bytes"], plans[0]["weight_bytes"]);
}

TEST_F(PlanVerbs, WhatCannotFitIsRefusedWithExitCode3) {
  const ProgramResult result = Sluice({"plan", model_, "--ram", "1M"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.err, HasSubstr("are needed at least"));
  EXPECT_EQ(result.out, "");
}

TEST_F(PlanVerbs, RulesThatMatchNothingAndFilesThatAreNoneAreRefused) {
  EXPECT_EQ(Sluice({"plan", model_, "--place", "experts=ram"}).exit_code, 2);
  EXPECT_EQ(Sluice({"plan", model_, "--place", "ffn=tape"}).exit_code, 2);
  EXPECT_EQ(Sluice({"plan", scratch_ / "none.json"}).exit_code, 1);
  EXPECT_EQ(Sluice({"plan", scratch_.Write("bad.json", "{")}).exit_code, 1);
  EXPECT_EQ(Sluice({"plan", scratch_ / "none.sluice"}).exit_code, 1);
}

TEST_F(PlanVerbs, ADamagedCacheOfRatesIsMeasuredAnew) {
  ASSERT_EQ(Sluice({"plan", model_, "--quiet"}).exit_code, 0);
  for (const char* text : {"{", R"({"drive 1": "fast"})"}) {
    scratch_.Write("cache/rates.json", text);
    const ProgramResult result = Sluice({"plan", model_, "--json", "--quiet"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_GT(Json::parse(result.out)["decode"]["tokens_per_s"], 0.0) << text;
  }
}

TEST_F(PlanVerbs, DoctorTellsWhatThereIs) {
  const ProgramResult text = Sluice({"doctor"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* word : {"processor", "memory", "io_uring", "GPU"})
    EXPECT_THAT(text.out, HasSubstr(word));
  const ProgramResult json = Sluice({"doctor", "--json"});
  ASSERT_EQ(json.exit_code, 0);
  const Json facts = Json::parse(json.out);
  EXPECT_GE(facts["usable_cores"], 1);
  EXPECT_EQ(facts["tables"][0], "ref");
  EXPECT_EQ(Sluice({"doctor", scratch_ / "none"}).exit_code, 1);
}

TEST_F(PlanVerbs, ATraceNamesReadsWaitsAndComputation) {
  const std::string path = scratch_ / "trace.json";
  const ProgramResult result = Sluice({"run", model_, "--raw", "-p", "a", "-n", "3", "--ignore-eos",
                                       "--quiet", "--place", "all=disk", "--trace", path});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json trace = Json::parse(ReadTestFile(path));
  std::map<std::string, int> events;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++events[event["cat"].get<std::string>()];
    EXPECT_GE(event["dur"], 0);
  }
  EXPECT_GT(events["drive"], 0);
  // Layers of two groups and a head, for the prompt and two more tokens.
  const auto layers =
      Json::parse(Sluice({"inspect", model_, "--json"}).out)["config"]["num_layers"].get<int>();
  EXPECT_EQ(events["compute"], 3 * (2 * layers + 1));
  EXPECT_EQ(Sluice({"run", model_, "--raw", "-p", "a", "-n", "1", "--quiet", "--trace",
                    scratch_ / "no/such/folder"})
                .exit_code,
            1);
}

TEST_F(PlanVerbs, ARunTellsWhatWasPlannedOnceTheMachineIsKnown) {
  const std::vector<std::string> run = {"run", model_, "--raw",        "-p",      "a",
                                        "-n",  "3",    "--ignore-eos", "--quiet", "--json"};
  EXPECT_FALSE(Json::parse(Sluice(run).out).contains("plan"));
  ASSERT_EQ(Sluice({"plan", model_, "--quiet"}).exit_code, 0);
  const Json json = Json::parse(Sluice(run).out);
  EXPECT_GT(json["plan"]["decode_tokens_per_s"], 0.0);
}

TEST_F(PlanVerbs, BenchGivesRowsInEveryForm) {
  const ProgramResult json = Sluice({"bench", model_, "--prompt-tokens", "8", "-n", "4",
                                     "--repeats", "1", "-o", "json", "--quiet"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json rows = Json::parse(json.out);
  ASSERT_EQ(rows.size(), 2u);
  for (const Json& row : rows) {
    for (const char* key : {"name", "tokens_per_s", "bytes_per_s", "limit", "share_of_limit"})
      EXPECT_TRUE(row.contains(key)) << key;
    EXPECT_GT(row["tokens_per_s"], 0.0);
  }
  EXPECT_THAT(Sluice({"bench", model_, "--prompt-tokens", "8", "-n", "2", "--repeats", "1", "-o",
                      "csv", "--quiet"})
                  .out,
              HasSubstr("name,tokens_per_s,bytes_per_s,limit,share_of_limit"));
  EXPECT_EQ(Sluice({"bench", "io"}).exit_code, 2);
  EXPECT_EQ(Sluice({"bench", "io", scratch_ / "none", "--read-size", "5000"}).exit_code, 2);
  EXPECT_EQ(Sluice({"bench", "io", scratch_ / "none", "--depth", "5000"}).exit_code, 2);
  EXPECT_EQ(Sluice({"bench", "io", scratch_ / "none"}).exit_code, 1);
}

}  // namespace
}  // namespace sluice
