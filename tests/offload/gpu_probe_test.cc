#include "offload/gpu_probe.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace sluice {
namespace {

// ProbeGpus by a management library that says so (tests/support/fake_nvml).
class GpuProbeTest : public ::testing::Test {
 protected:
  ~GpuProbeTest() override { unsetenv("FAKE_NVML"); }
  GpuProbe Probe(const std::string& said, const CudaGpu* used = nullptr) {
    setenv("FAKE_NVML", said.c_str(), 1);
    return ProbeGpus(used, library_.c_str());
  }
  const std::string library_ = std::string(SLUICE_FAKE_NVML_DIR) + "/" + kNvmlLibrary;
};

TEST_F(GpuProbeTest, TellsEachGpuAndTheDriver) {
  const GpuProbe probe = Probe(
      "580.159.03|13000;NVIDIA H200|150754820096|150000000000|9|0|5|16;"
      "NVIDIA GeForce RTX 3060|12884901888|1000|8|6|4|8");
  EXPECT_EQ(probe.driver, "580.159.03");
  EXPECT_EQ(probe.cuda, "13.0");
  ASSERT_EQ(probe.gpus.size(), 2u);
  EXPECT_EQ(probe.gpus[0].name, "NVIDIA H200");
  EXPECT_EQ(probe.gpus[0].memory_bytes, 150754820096u);
  EXPECT_EQ(probe.gpus[0].free_bytes, 150000000000u);
  EXPECT_EQ(probe.gpus[0].compute_capability, "9.0");
  EXPECT_EQ(probe.gpus[0].pcie_generation, 5);
  EXPECT_EQ(probe.gpus[0].pcie_width, 16);
  EXPECT_EQ(probe.gpus[0].index, 0u);
  EXPECT_EQ(probe.gpus[0].pci_address, "00000000:01:00.0");
  EXPECT_EQ(probe.gpus[1].index, 1u);
  EXPECT_EQ(probe.gpus[1].pci_address, "00000000:02:00.0");
  EXPECT_EQ(probe.used, std::nullopt);
  EXPECT_EQ(probe.gpus[1].compute_capability, "8.6");
  EXPECT_EQ(probe.gpus[1].free_bytes, 1000u);
}

TEST_F(GpuProbeTest, WhatTheLibraryDoesNotSayIsNotKnown) {
  const GpuProbe probe = Probe("|;GPU||||||");
  EXPECT_EQ(probe.driver, "");
  EXPECT_EQ(probe.cuda, "");
  ASSERT_EQ(probe.gpus.size(), 1u);
  EXPECT_EQ(probe.gpus[0].memory_bytes, 0u);
  EXPECT_EQ(probe.gpus[0].compute_capability, "");
  EXPECT_EQ(probe.gpus[0].pcie_generation, 0);
  EXPECT_TRUE(Probe("550.54|12040").gpus.empty());
}

constexpr char kTwoGpus[] =
    "580|13000;Small|8589934592|8000000000|8|6|4|8;Large|150754820096|150000000000|9|0|5|16";

CudaGpu At(const std::string& pci_address, const std::string& uuid = "") {
  return {"what CUDA says", pci_address, uuid, 1000, "9.0"};
}

TEST_F(GpuProbeTest, TheUsedGpuIsTheOneAtCudasAddressWhateverTheOrder) {
  const CudaGpu large = At("0000:02:00.0");
  EXPECT_EQ(Probe(kTwoGpus, &large).used, 1u);
  const CudaGpu small = At("0000:01:00.0");
  EXPECT_EQ(Probe(kTwoGpus, &small).used, 0u);
  for (const char* address : {"0000:03:00.0", "0001:01:00.0", ""}) {
    const CudaGpu elsewhere = At(address);
    EXPECT_EQ(Probe(kTwoGpus, &elsewhere).used, std::nullopt) << address;
  }
  EXPECT_EQ(Probe("580|13000", &small).used, std::nullopt);
}

TEST_F(GpuProbeTest, OfADividedGpuTheInstanceIsDescribed) {
  const std::string divided = std::string(kTwoGpus) + ";Large 1g.18gb|19000000000|18000000000|||||";
  const CudaGpu instance = At("0000:02:00.0", "12-34");
  const GpuProbe probe = Probe(divided + "MIG-12-34", &instance);
  ASSERT_EQ(probe.gpus.size(), 2u);
  EXPECT_EQ(probe.used, 1u);
  EXPECT_EQ(probe.gpus[1].name, "Large 1g.18gb");
  EXPECT_EQ(probe.gpus[1].memory_bytes, 19000000000u);
  EXPECT_EQ(probe.gpus[1].free_bytes, 18000000000u);
  EXPECT_EQ(probe.gpus[1].compute_capability, "9.0");
  // Another one is none of this program's.
  EXPECT_EQ(Probe(divided + "MIG-12-35", &instance).gpus[1].name, "Large");
}

TEST_F(GpuProbeTest, NamesLongerThanTheirRoomAreCut) {
  const GpuProbe probe = Probe("1|1;" + std::string(500, 'x'));
  ASSERT_EQ(probe.gpus.size(), 1u);
  EXPECT_EQ(probe.gpus[0].name, std::string(95, 'x'));
}

TEST_F(GpuProbeTest, ADriverThatDoesNotWorkIsNoDriver) {
  const GpuProbe broken = ProbeGpus(nullptr, library_.c_str());
  EXPECT_TRUE(broken.gpus.empty());
  EXPECT_EQ(broken.driver, "an NVIDIA driver is installed, but does not work");
  EXPECT_EQ(ProbeGpus(nullptr, "libm.so.6").driver,
            "an NVIDIA driver is installed, but does not work");
  EXPECT_EQ(ProbeGpus(nullptr, "libthere-is-none.so.1").driver, "no NVIDIA driver");
}

TEST_F(GpuProbeTest, FreeMemoryIsThatOfTheAddress) {
  Probe("580|13000;GPU|1000|700|9|0|5|16");
  EXPECT_EQ(FreeGpuBytes("0000:01:00.0", library_.c_str()), 700u);
  EXPECT_EQ(FreeGpuBytes("0000:02:00.0", library_.c_str()), std::nullopt);
  EXPECT_EQ(FreeGpuBytes("0000:01:00.0", "libthere-is-none.so.1"), std::nullopt);
}

}  // namespace
}  // namespace sluice
