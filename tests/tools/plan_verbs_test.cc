// plan, doctor and bench as their user calls them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "formats/sluice_file.h"
#include "formats/weight_type.h"
#include "loaders/model_outline.h"
#include "tests/support/golden_model.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/weight_matrix.h"
#include "tools/machine_rates.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

// What `plan --json` prints of a machine; every type of weights at one speed.
Json MachineOf(double matmul_bytes_per_s) {
  Json json = {{"isa", "avx2"},
               {"threads", 8},
               {"drive_bytes_per_s", 3e9},
               {"busy_drive_bytes_per_s", 2e9},
               {"memory_bytes_per_s", 4e10},
               {"verification_bytes_per_s", 2e10}};
  for (const WeightType& type : test::AllWeightTypes()) {
    json["matmul"][WeightTypeName(type)] = {{"one_token_bytes_per_s", matmul_bytes_per_s},
                                            {"batch_bytes_per_s", 100 * matmul_bytes_per_s}};
  }
  return json;
}

class PlanVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.environment = {{"SLUICE_CACHE", scratch_ / "cache"}};
    golden_ = testing::LoadGolden("gqa");
    model_ = testing::ConvertGolden(golden_, "auto", scratch_ / "model.sluice");
  }
  ProgramResult Sluice(const std::vector<std::string>& words) { return RunSluice(words, options_); }
  // The exit code of a plan with these rates.
  int PlanWith(const Json& rates) {
    return Sluice({"plan", model_, "--rates", scratch_.Write("given.json", rates.dump())})
        .exit_code;
  }

  ScratchDirectory scratch_;
  ProgramOptions options_;
  testing::GoldenModel golden_;
  std::string model_;
};

TEST_F(PlanVerbs, AFileItsCheckpointAndItsConfigurationGiveTheSamePlan) {
  const std::string rates = scratch_.Write("rates.json", MachineOf(1e10).dump());
  std::vector<Json> plans;
  for (const std::string& source :
       {model_, golden_.source_path, golden_.source_path + "/config.json"}) {
    const ProgramResult result = Sluice({"plan", source, "--json", "--rates", rates});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
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

TEST_F(PlanVerbs, RatesThatAreGivenAreThoseOfThePlan) {
  double slower = 0;
  for (const double speed : {1e9, 1e10}) {
    const std::string rates = scratch_.Write("rates.json", MachineOf(speed).dump());
    const ProgramResult result = Sluice({"plan", model_, "--json", "--rates", rates});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Json plan = Json::parse(result.out);
    for (const char* key : {"isa", "threads", "drive_bytes_per_s", "busy_drive_bytes_per_s",
                            "memory_bytes_per_s", "verification_bytes_per_s"}) {
      EXPECT_EQ(plan[key], MachineOf(speed)[key]) << key;
    }
    EXPECT_EQ(plan["drive_rate"], "given");
    EXPECT_GT(plan["decode"]["tokens_per_s"], slower);
    slower = plan["decode"]["tokens_per_s"];
  }
}

TEST_F(PlanVerbs, RatesThatAreNoneAreRefused) {
  EXPECT_EQ(PlanWith(MachineOf(1e10)), 0);
  for (const char* key : {"isa", "threads", "drive_bytes_per_s", "memory_bytes_per_s", "matmul"}) {
    Json without = MachineOf(1e10);
    without.erase(key);
    EXPECT_EQ(PlanWith(without), 1) << key;
    for (const Json& wrong : {Json(nullptr), Json(-1.5), Json::array({1})}) {
      Json spoiled = MachineOf(1e10);
      spoiled[key] = wrong;
      EXPECT_EQ(PlanWith(spoiled), 1) << key << " " << wrong;
    }
  }
  Json no_types = MachineOf(1e10);
  no_types["matmul"] = Json::object();
  EXPECT_EQ(PlanWith(no_types), 1);
  EXPECT_EQ(PlanWith(MachineOf(0)), 1);
  EXPECT_EQ(PlanWith(Json::array()), 1);
  const std::string none = scratch_ / "none.json";
  EXPECT_EQ(Sluice({"plan", model_, "--rates", none}).exit_code, 1);
  for (const std::vector<std::string>& option :
       {std::vector<std::string>{"--measure"}, {"--isa", "ref"}, {"--threads", "2"}}) {
    std::vector<std::string> words = {"plan", model_, "--rates", none};
    words.insert(words.end(), option.begin(), option.end());
    EXPECT_EQ(Sluice(words).exit_code, 2) << option[0];
  }
}

TEST_F(PlanVerbs, PromptsInF16CountInTheMemoryOfAGpuAlone) {
  const std::string rates = scratch_.Write("rates.json", MachineOf(1e8).dump());
  const auto plan_with = [&](const std::string& prefill, const std::string& vram) {
    return Sluice({"plan", model_, "--json", "--rates", rates, "--prefill", prefill, "--vram", vram,
                   "--ram", "1G"});
  };
  Json int8 = Json::parse(plan_with("int8", "4G").out);
  Json f16 = Json::parse(plan_with("f16", "4G").out);
  if (int8["gpu"].contains("why_not")) {
    EXPECT_EQ(f16["gpu"]["why_not"], int8["gpu"]["why_not"]);
    EXPECT_EQ(int8["gpu"]["why_not"], "this build has no CUDA");
  } else {
    // Workspace, and what the library takes for itself.
    EXPECT_GE(f16["gpu"]["vram_smallest_bytes"].get<uint64_t>(),
              int8["gpu"]["vram_smallest_bytes"].get<uint64_t>() + (uint64_t{96} << 20));
    EXPECT_TRUE(f16["gpu"].contains("f16_library_bytes"));
  }
  int8.erase("gpu");
  f16.erase("gpu");
  EXPECT_EQ(f16, int8) << "what the processor does is the same";
  EXPECT_EQ(plan_with("f16", "0").exit_code, 2);
}

TEST_F(PlanVerbs, PromptsInBf16HaveRatesAndABufferOfTheirOwn) {
  const std::vector<std::string> words = {"plan", model_, "--json", "--vram", "4G", "--rates"};
  const auto plan_with = [&](const Json& rates, const std::string& prefill) {
    std::vector<std::string> all = words;
    all.insert(all.end(), {scratch_.Write("rates.json", rates.dump()), "--prefill", prefill});
    return Sluice(all);
  };
  Json rates = MachineOf(1e8);
  const ProgramResult without = plan_with(rates, "bf16");
  EXPECT_EQ(without.exit_code, 1);
  EXPECT_THAT(without.err, HasSubstr("in bf16"));
  for (auto& [type, rate] : rates["matmul"].items()) rate["bf16_batch_bytes_per_s"] = 4e10;
  const Json int8 = Json::parse(plan_with(rates, "int8").out);
  const Json bf16 = Json::parse(plan_with(rates, "bf16").out);
  EXPECT_EQ(int8["prefill"]["products"], "int8");
  EXPECT_EQ(bf16["prefill"]["products"], "bf16");
  EXPECT_EQ(bf16["decode"], int8["decode"]);
  // Products take a quarter of the time; what the layers take besides is in both, and so is the
  // head, which is for the last token alone at the rate of one.
  const Json file = Json::parse(Sluice({"inspect", model_, "--json"}).out);
  const auto layers = file["config"]["num_layers"].get<double>();
  const Json& head = file["groups"].back();
  ASSERT_EQ(head["kind"], "head");
  const double besides = 25e-6 * layers + head["size_bytes"].get<double>() / 1e8;
  const auto products = [&](const Json& plan) {
    return plan["prefill"]["processor_s"].get<double>() - besides;
  };
  EXPECT_GT(products(bf16), 0);
  // MachineOf's batch rate is 100 times that of one token, and verification is in neither.
  EXPECT_NEAR(products(int8) / products(bf16), 4, 1e-6);
  // Two bytes for each of 512 tokens and each channel of the widest buffer, the FFN's.
  EXPECT_GE(bf16["activation_bytes"].get<double>(),
            int8["activation_bytes"].get<double>() + 2 * 512 * 96);
  EXPECT_THAT(bf16["gpu"]["why_not"], AnyOf(HasSubstr("bf16"), HasSubstr("no CUDA")));
  EXPECT_EQ(bf16["matmul"], int8["matmul"]);
  for (auto& [type, rate] : rates["matmul"].items()) rate["bf16_batch_bytes_per_s"] = -1;
  EXPECT_EQ(plan_with(rates, "bf16").exit_code, 1);
  EXPECT_EQ(Sluice({"plan", model_, "--isa", "avx2", "--prefill", "bf16"}).exit_code, 3);
}

// The rates of this machine in the cache of these tests; it is busy if `is_busy` says so.
class RatesOfThisMachine : public PlanVerbs {
 protected:
  void SetUp() override {
    PlanVerbs::SetUp();
    setenv("SLUICE_CACHE", (scratch_ / "cache").c_str(), 1);
    std::filesystem::create_directories(scratch_ / "cache");
    outline_ = OutlineFile(**SluiceFile::Open(model_));
  }
  void TearDown() override { unsetenv("SLUICE_CACHE"); }
  Result<RatesReport> Rates(bool (*is_busy)(const Load&), bool only_known = false) {
    RatesRequest request;
    request.file = measured_file_;
    request.quiet = true;
    request.only_known = only_known;
    request.is_busy = is_busy;
    return RatesFor(outline_, request);
  }
  static bool Never(const Load&) { return false; }
  static bool Always(const Load&) { return true; }

  ModelOutline outline_;
  std::string measured_file_;
};

TEST_F(RatesOfThisMachine, AreMeasuredOnceAndWhatIsDamagedInTheCacheAnew) {
  const std::vector<std::string> run = {"run", model_, "--raw",        "-p",      "a",
                                        "-n",  "3",    "--ignore-eos", "--quiet", "--json"};
  EXPECT_FALSE(Json::parse(Sluice(run).out).contains("plan"));
  const std::string cache = scratch_.Write("cache/rates.json", "{");
  measured_file_ = model_;
  const Result<RatesReport> measured = Rates(Never);
  ASSERT_TRUE(measured.ok()) << measured.status().message();
  EXPECT_FALSE(measured->busy);
  EXPECT_GT(Json::parse(Sluice(run).out)["plan"]["decode_tokens_per_s"], 0.0);

  const ProgramResult plan = Sluice({"plan", model_, "--json"});
  EXPECT_THAT(plan.err, Not(HasSubstr("measuring")));
  const Json planned = Json::parse(plan.out);
  EXPECT_EQ(planned["memory_bytes_per_s"], measured->rates.memory_bytes_per_s);
  EXPECT_EQ(planned["measured_while_busy"], false);
  const std::string printed = scratch_.Write("printed.json", plan.out);
  const ProgramResult elsewhere = Sluice({"plan", model_, "--json", "--rates", printed});
  EXPECT_EQ(Json::parse(elsewhere.out)["decode"], planned["decode"]);

  for (const Json& damage : {Json("fast"), Json(-1.0), Json(nullptr)}) {
    Json rates = Json::parse(ReadTestFile(cache));
    std::string key;
    for (const auto& [name, rate] : rates.items()) {
      if (name.ends_with("verification")) key = name;
    }
    ASSERT_FALSE(key.empty());
    rates[key] = damage;
    scratch_.Write("cache/rates.json", rates.dump());
    ASSERT_TRUE(Rates(Never).ok());
    const Json repaired = Json::parse(ReadTestFile(cache));
    EXPECT_GT(repaired[key], 0.0);
    rates.erase(key);
    for (const auto& [name, rate] : rates.items()) EXPECT_EQ(repaired[name], rate) << name;
  }
}

TEST_F(RatesOfThisMachine, AreUsedButNotKeptWhereItWasBusyAllTheTime) {
  const Result<RatesReport> busy = Rates(Always);
  ASSERT_TRUE(busy.ok()) << busy.status().message();
  EXPECT_TRUE(busy->busy);
  ASSERT_FALSE(busy->rates.matmul.empty());
  EXPECT_GT(busy->rates.matmul[0].one_token_bytes_per_s, 0);
  EXPECT_GT(busy->rates.memory_bytes_per_s, 0);
  EXPECT_EQ(Rates(Never, /*only_known=*/true).status().code(), ErrorCode::kNotFound);
  // The whole way: the program says that it measures, and of what it measured then that it was
  // busy.
  const ProgramResult plan = Sluice({"plan", model_});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_THAT(plan.err, HasSubstr("measuring this machine"));
  Json rates = MachineOf(1e10);
  rates["measured_while_busy"] = true;
  EXPECT_THAT(Sluice({"plan", model_, "--rates", scratch_.Write("r.json", rates.dump())}).out,
              HasSubstr("while other programs used the processors"));
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
