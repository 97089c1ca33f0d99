// What plan and doctor say of GPUs that this machine does not have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "formats/sluice_file.h"
#include "loaders/model_outline.h"
#include "offload/gpu_probe.h"
#include "tests/support/golden_model.h"
#include "tests/support/program.h"
#include "tests/support/scratch_directory.h"
#include "tools/diagnosis.h"
#include "tools/gpu_plan.h"

namespace sluice {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kGiB = uint64_t{1} << 30;

// A machine of which nothing else is wrong.
MachineFacts Machine() {
  MachineFacts facts;
  facts.cpu = "a processor";
  facts.tables = {"ref", "avx2"};
  facts.memory_bytes = 64 * kGiB;
  facts.available_bytes = 60 * kGiB;
  facts.lockable_bytes = UINT64_MAX;
  facts.huge_pages = "madvise";
  facts.gpus = {
      {"NVIDIA GeForce RTX 4090", 24 * kGiB, 23 * kGiB, "8.9", 4, 16, 0, "00000000:01:00.0"}};
  facts.gpu_driver = "580.95.05";
  facts.gpu_cuda = "13.0";
  facts.cuda_build = "CUDA 13.0: sm_89";
  return facts;
}

Diagnosis Examined(const MachineFacts& facts) {
  Diagnosis diagnosis;
  diagnosis.facts = facts;
  FindProblems(&diagnosis);
  return diagnosis;
}

std::string OnlyProblem(const MachineFacts& facts) {
  const Diagnosis diagnosis = Examined(facts);
  EXPECT_EQ(diagnosis.findings.size(), 1u);
  return diagnosis.findings.empty() ? "" : diagnosis.findings[0].problem;
}

TEST(Diagnosis, AGpuThatServes) {
  const Diagnosis diagnosis = Examined(Machine());
  EXPECT_TRUE(diagnosis.findings.empty());
  EXPECT_THAT(
      DiagnosisText(diagnosis),
      AllOf(HasSubstr("GPU           NVIDIA GeForce RTX 4090, 24.0 GiB (23.0 GiB free), "
                      "compute 8.9, PCIe 4 x16; driver 580.95.05\n"),
            HasSubstr("build         with CUDA 13.0: sm_89\n"), HasSubstr("nothing is wrong\n")));
  const Json json = Json::parse(DiagnosisJson(diagnosis));
  EXPECT_EQ(json["gpu_driver"], "580.95.05");
  EXPECT_EQ(json["gpu_cuda"], "13.0");
  EXPECT_EQ(json["cuda_build"], "CUDA 13.0: sm_89");
  ASSERT_EQ(json["gpus"].size(), 1u);
  EXPECT_EQ(json["gpus"][0], (Json{{"index", 0},
                                   {"name", "NVIDIA GeForce RTX 4090"},
                                   {"pci_address", "00000000:01:00.0"},
                                   {"used", true},
                                   {"memory_bytes", 24 * kGiB},
                                   {"free_bytes", 23 * kGiB},
                                   {"compute_capability", "8.9"},
                                   {"pcie_generation", 4},
                                   {"pcie_width", 16}}));
  EXPECT_TRUE(json["findings"].empty());
}

TEST(Diagnosis, AMemorySpeedThatOthersDisturbedSaysSo) {
  Diagnosis diagnosis = Examined(Machine());
  diagnosis.memory_bytes_per_s = 20e9;
  EXPECT_THAT(DiagnosisText(diagnosis), HasSubstr("reads at 20.0 GB/s; huge pages"));
  EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["measured_while_busy"], false);
  diagnosis.memory_was_busy = true;
  EXPECT_THAT(DiagnosisText(diagnosis),
              HasSubstr("reads at 20.0 GB/s while other programs use the processors; huge pages"));
  EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["measured_while_busy"], true);
}

TEST(Diagnosis, GpusThatDoNotServe) {
  MachineFacts facts = Machine();
  facts.gpus[0].compute_capability = "7.5";
  EXPECT_THAT(OnlyProblem(facts), HasSubstr("RTX 4090 has compute capability 7.5: 8.0"));
  facts = Machine();
  facts.gpu_driver = "535.104.12";
  facts.gpu_cuda = "12.2";
  EXPECT_EQ(OnlyProblem(facts),
            "driver 535.104.12 is for CUDA 12.2, this build of sluice is with CUDA 13.0: sm_89: "
            "the GPU is not used");
  facts = Machine();
  facts.gpus[0].free_bytes = 5 * kGiB;
  EXPECT_EQ(OnlyProblem(facts), "5.00 GiB of 24.0 GiB GPU memory are free");
  facts = Machine();
  facts.cuda_build = "none";
  EXPECT_THAT(OnlyProblem(facts), HasSubstr("has no CUDA"));
  EXPECT_THAT(DiagnosisText(Examined(facts)), HasSubstr("build         without CUDA\n"));
}

// Its first GPU by address is small, and CUDA takes the other one, which is faster.
MachineFacts MachineOfTwo() {
  MachineFacts facts = Machine();
  facts.gpus.insert(facts.gpus.begin(), {"NVIDIA GeForce RTX 3060", 12 * kGiB, 11 * kGiB, "8.6", 4,
                                         8, 0, "00000000:01:00.0"});
  facts.gpus[1].index = 1;
  facts.gpus[1].pci_address = "00000000:02:00.0";
  facts.used_gpu = 1;
  return facts;
}

TEST(Diagnosis, OfSeveralGpusItSaysWhichOneIsUsedAndHowToTakeAnother) {
  const Diagnosis diagnosis = Examined(MachineOfTwo());
  EXPECT_TRUE(diagnosis.findings.empty());
  EXPECT_THAT(DiagnosisText(diagnosis),
              HasSubstr("GPU 0         NVIDIA GeForce RTX 3060, 12.0 GiB (11.0 GiB free), compute "
                        "8.6, PCIe 4 x8; driver 580.95.05\n"
                        "GPU 1         NVIDIA GeForce RTX 4090, 24.0 GiB (23.0 GiB free), compute "
                        "8.9, PCIe 4 x16; driver 580.95.05; sluice uses this one\n"
                        "              another one: CUDA_DEVICE_ORDER=PCI_BUS_ID "
                        "CUDA_VISIBLE_DEVICES=NUMBER in the environment\n"));
  const Json json = Json::parse(DiagnosisJson(diagnosis));
  EXPECT_EQ(json["gpus"][0]["used"], false);
  EXPECT_EQ(json["gpus"][1]["used"], true);
}

TEST(Diagnosis, WhatIsWrongWithAGpuThatIsNotUsedIsNoProblem) {
  MachineFacts facts = MachineOfTwo();
  facts.gpus[0].compute_capability = "5.2";
  facts.gpus[0].free_bytes = 0;
  EXPECT_TRUE(Examined(facts).findings.empty());
  facts.used_gpu = 0;
  const Diagnosis diagnosis = Examined(facts);
  ASSERT_EQ(diagnosis.findings.size(), 1u);
  EXPECT_THAT(diagnosis.findings[0].problem, HasSubstr("RTX 3060 has compute capability 5.2"));
  EXPECT_THAT(diagnosis.findings[0].cure,
              HasSubstr("or NVIDIA GeForce RTX 4090, with CUDA_DEVICE_ORDER=PCI_BUS_ID "
                        "CUDA_VISIBLE_DEVICES=1"));
}

TEST(Diagnosis, GpusThatTheEnvironmentHidesAreNamedWithTheCure) {
  for (const char* visible : {"", "-1"}) {
    Diagnosis diagnosis;
    diagnosis.facts = MachineOfTwo();
    diagnosis.facts.why_no_gpu = "CUDA shows no GPU to this program";
    diagnosis.visible_devices = visible;
    FindProblems(&diagnosis);
    ASSERT_EQ(diagnosis.findings.size(), 1u);
    EXPECT_EQ(diagnosis.findings[0].problem,
              "the GPU is not used: CUDA shows no GPU to this program");
    EXPECT_THAT(diagnosis.findings[0].cure,
                HasSubstr(std::string("CUDA_VISIBLE_DEVICES is '") + visible + "': unset it"));
    EXPECT_THAT(DiagnosisText(diagnosis), Not(HasSubstr("uses this one")));
    EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["gpus"][1]["used"], false);
  }
}

TEST(Diagnosis, WithoutAGpuNothingIsWrong) {
  MachineFacts facts = Machine();
  facts.gpus.clear();
  facts.gpu_driver = "no NVIDIA driver";
  facts.gpu_cuda = "";
  const Diagnosis diagnosis = Examined(facts);
  EXPECT_TRUE(diagnosis.findings.empty());
  EXPECT_THAT(DiagnosisText(diagnosis), HasSubstr("GPU           none (no NVIDIA driver)\n"));
  EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["gpus"], Json::array());
}

TEST(Diagnosis, ANewerDriverAndOneThatIsNotKnownAreTaken) {
  MachineFacts facts = Machine();
  for (const char* cuda : {"14.1", "13.1", ""}) {
    facts.gpu_cuda = cuda;
    EXPECT_TRUE(Examined(facts).findings.empty()) << cuda;
  }
}

class GpuPlanTest : public ::testing::Test {
 protected:
  GpuPlanTest() {
    const testing::GoldenModel golden = testing::LoadGolden("gqa");
    model_ = testing::ConvertGolden(golden, "int4", scratch_ / "model.sluice");
    outline_ = OutlineFile(**SluiceFile::Open(model_));
    request_.context_tokens = 64;
  }
  GpuPlan Plan(const MachineFacts& facts, std::optional<uint64_t> vram_bytes = std::nullopt) {
    return PlanGpu(outline_, request_, vram_bytes, facts);
  }

  ScratchDirectory scratch_;
  std::string model_;
  ModelOutline outline_;
  PlanRequest request_;
};

TEST_F(GpuPlanTest, AModelThatFits) {
  const GpuPlan plan = Plan(Machine());
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.why_not, "");
  EXPECT_EQ(plan.budget_bytes, 23 * kGiB - 23 * kGiB / 16);
  EXPECT_THAT(GpuPlanText(plan),
              AllOf(HasSubstr("GPU           NVIDIA GeForce RTX 4090, 24.0 GiB (23.0 GiB free)"),
                    HasSubstr("the GPU computes")));
  const Json json = GpuPlanJson(plan);
  EXPECT_EQ(json["fits"], true);
  EXPECT_EQ(json["gpus"].size(), 1u);
  EXPECT_EQ(json["vram_budget_bytes"], plan.budget_bytes);
  EXPECT_EQ(json["vram_smallest_bytes"], plan.smallest_bytes);
  for (const char* field :
       {"weight_bytes", "kv_cache_bytes", "activation_bytes", "scratch_bytes"}) {
    EXPECT_GT(json[field], 0) << field;
  }
  EXPECT_FALSE(json.contains("why_not"));
}

TEST_F(GpuPlanTest, TheBudgetIsThatOfTheGpuThatIsUsed) {
  MachineFacts facts = MachineOfTwo();
  EXPECT_EQ(Plan(facts).budget_bytes, 23 * kGiB - 23 * kGiB / 16);
  EXPECT_THAT(GpuPlanText(Plan(facts)), AllOf(HasSubstr("GPU 1         NVIDIA GeForce RTX 4090"),
                                              HasSubstr("uses this one")));
  EXPECT_EQ(GpuPlanJson(Plan(facts))["gpus"][1]["used"], true);
  facts.used_gpu = 0;
  EXPECT_EQ(Plan(facts).budget_bytes, 11 * kGiB - 11 * kGiB / 16);
}

TEST_F(GpuPlanTest, TooLittleFreeMemory) {
  MachineFacts facts = Machine();
  facts.gpus[0].free_bytes = kGiB / 4;
  const GpuPlan plan = Plan(facts);
  EXPECT_FALSE(plan.fits);
  EXPECT_EQ(plan.why_not, "");
  EXPECT_THAT(GpuPlanText(plan), AllOf(HasSubstr("of 240.0 MiB"),
                                       HasSubstr("it does not fit, the processor computes")));
  EXPECT_EQ(GpuPlanJson(plan)["fits"], false);
}

TEST_F(GpuPlanTest, GpusThatDoNotServeAreNamedWithTheReason) {
  const auto expect = [&](const MachineFacts& facts, const std::string& why) {
    const GpuPlan plan = Plan(facts);
    EXPECT_FALSE(plan.fits);
    EXPECT_EQ(plan.why_not, why);
    EXPECT_THAT(GpuPlanText(plan), HasSubstr("VRAM          none (" + why + ")\n"));
    const Json json = GpuPlanJson(plan);
    EXPECT_EQ(json["why_not"], why);
    EXPECT_FALSE(json.contains("fits"));
  };
  MachineFacts facts = Machine();
  facts.gpus[0].compute_capability = "7.5";
  expect(facts, "NVIDIA GeForce RTX 4090 has compute capability 7.5, 8.0 is needed");
  facts = Machine();
  facts.gpu_driver = "535.104.12";
  facts.gpu_cuda = "12.2";
  expect(facts, "driver 535.104.12 is for CUDA 12.2, this build is with CUDA 13.0: sm_89");
  facts = Machine();
  facts.gpus.clear();
  expect(facts, "the driver has no GPU");
  facts.gpu_cuda = "";
  facts.gpu_driver = "no NVIDIA driver";
  expect(facts, "no NVIDIA driver");
  facts = Machine();
  facts.why_no_gpu = "CUDA shows no GPU to this program";
  expect(facts, "CUDA shows no GPU to this program");
  facts.cuda_build = "none";
  expect(facts, "this build has no CUDA");
}

TEST_F(GpuPlanTest, ABudgetIsPlannedWithWhateverGpuThereIs) {
  MachineFacts facts = Machine();
  facts.gpus.clear();
  EXPECT_TRUE(Plan(facts, 8 * kGiB).fits);
  EXPECT_FALSE(Plan(facts, 1000).fits);
  EXPECT_EQ(Plan(facts, 0).why_not, "--vram 0");
}

TEST_F(GpuPlanTest, PromptsInF16NeedAPanelAWorkspaceAndTheLibrary) {
  const GpuPlan without = Plan(Machine());
  EXPECT_FALSE(GpuPlanJson(without).contains("f16_library_bytes"));
  request_.f16_prompts = true;
  const GpuPlan with = Plan(Machine());
  EXPECT_EQ(with.needed.library_bytes, kF16LibraryBytes);
  constexpr uint64_t kWorkspace = uint64_t{32} << 20;
  EXPECT_GT(with.needed.scratch_bytes, without.needed.scratch_bytes + kWorkspace);
  EXPECT_GT(with.needed.activation_bytes, without.needed.activation_bytes);
  EXPECT_GE(with.smallest_bytes, without.smallest_bytes + kWorkspace + kF16LibraryBytes);
  EXPECT_THAT(GpuPlanText(with), HasSubstr("cuBLASLt taken for 64.0 MiB, "));
  EXPECT_EQ(GpuPlanJson(with)["f16_library_bytes"], kF16LibraryBytes);
  EXPECT_THAT(GpuPlanText(Plan(Machine(), 1000)),
              HasSubstr("it does not fit, and prompts in f16 are for a GPU"));
  // Passes are longer where contexts are.
  request_.context_tokens = 8192;
  const GpuPlan longer = Plan(Machine());
  EXPECT_GT(longer.needed.activation_bytes, 7 * with.needed.activation_bytes);
}

TEST(Diagnosis, WhetherPromptsInF16CanBeHad) {
  Diagnosis diagnosis = Examined(Machine());
  diagnosis.no_f16_library = "there is no cuBLASLt: libcublasLt.so.13: cannot open";
  EXPECT_THAT(DiagnosisText(diagnosis),
              HasSubstr("--prefill f16 not here (there is no cuBLASLt: libcublasLt.so.13: cannot "
                        "open)\n"));
  EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["no_f16_library"], diagnosis.no_f16_library);
  diagnosis.f16_library = "cuBLASLt 13.1.0 (libcublasLt.so.13)";
  diagnosis.no_f16_library = "";
  EXPECT_THAT(DiagnosisText(diagnosis),
              HasSubstr("--prefill f16 cuBLASLt 13.1.0 (libcublasLt.so.13)\n"));
  EXPECT_EQ(Json::parse(DiagnosisJson(diagnosis))["f16_library"], diagnosis.f16_library);
}

TEST(PrefillInF16, IsForAGpuAlone) {
  const ScratchDirectory scratch;
  const std::string model =
      testing::ConvertGolden(testing::LoadGolden("gqa"), "int4", scratch / "model.sluice");
  const std::vector<std::string> words = {"run", model, "-p", "x", "-n", "1", "--prefill", "f16"};
  const ProgramResult result = RunSluice(words);
  if (result.exit_code != 0) {  // there is no GPU, no library for it, or no CUDA in this build
    EXPECT_EQ(result.exit_code, 3) << result.err;
    EXPECT_THAT(result.err, HasSubstr("prefill in f16"));
  }
  std::vector<std::string> on_processor = words;
  on_processor.insert(on_processor.end(), {"--vram", "0"});
  const ProgramResult refused = RunSluice(on_processor);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("prefill in f16 and no GPU memory (--vram 0)"));
  EXPECT_EQ(RunSluice({"bench", "kernels", "--prefill", "f16"}).exit_code, 2);
}

// The whole way: the program, with a management library of a GPU that is not there.
TEST(Doctor, TellsWhatTheManagementLibrarySays) {
  ProgramOptions options;
  options.environment = {{"LD_LIBRARY_PATH", SLUICE_FAKE_NVML_DIR ":" SLUICE_FAKE_CUBLASLT_DIR},
                         {"FAKE_NVML", "470.10|11040;Old\nGPU|8589934592|1073741824|7|0|3|8"}};
  const ProgramResult json = RunSluice({"doctor", "--json"}, options);
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json facts = Json::parse(json.out);
  EXPECT_EQ(facts["gpu_driver"], "470.10");
  EXPECT_EQ(facts["gpu_cuda"], "11.4");
  ASSERT_EQ(facts["gpus"].size(), 1u);
  EXPECT_EQ(facts["gpus"][0]["name"], "Old\nGPU");
  EXPECT_EQ(facts["gpus"][0]["compute_capability"], "7.0");
  EXPECT_FALSE(facts["findings"].empty());
  EXPECT_EQ(facts["f16_library"], "cuBLASLt 13.2.5 (libcublasLt.so.13)");
  const ProgramResult text = RunSluice({"doctor"}, options);
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("8.00 GiB (1.00 GiB free), compute 7.0, PCIe 3 x8"),
                              HasSubstr("problem"), Not(HasSubstr("Old\nGPU"))));
}

}  // namespace
}  // namespace sluice
