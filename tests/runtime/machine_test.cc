#include "runtime/machine.h"

#include <gtest/gtest.h>

#include "kernels/select.h"

namespace sluice {
namespace {

TEST(Machine, MeasuresAndProbesWithoutTrouble) {
  const MachineFacts facts = ProbeMachine();
  EXPECT_FALSE(facts.tables.empty());
  EXPECT_GT(facts.memory_bytes, 0u);
  EXPECT_LE(facts.available_bytes, facts.memory_bytes);
  const Result<MatmulRate> rate =
      MeasureMatmulOn({WeightKind::kInt4, WeightOffset::kZeroPoint, 128}, "", 1);
  ASSERT_TRUE(rate.ok()) << rate.status().message();
  EXPECT_EQ(rate->type, "int4:g128:zero");
  EXPECT_GT(rate->one_token_bytes_per_s, 0);
  EXPECT_GT(rate->batch_bytes_per_s, 0);
  EXPECT_EQ(MeasureMatmulOn({}, "mmx", 1).status().code(), ErrorCode::kInvalidArgument);
}

GpuProbe TwoGpus() {
  GpuProbe probe;
  probe.driver = "580.95.05";
  probe.gpus.resize(2);
  probe.gpus[0].name = "small";
  probe.gpus[1].index = 1;
  probe.gpus[1].name = "large";
  return probe;
}

const CudaGpu kLarge = {"large", "0000:02:00.0", "1-2-3-4-5", 1000, "9.0"};

TEST(Machine, TheGpuThatIsUsedIsTheOneThatCudaFindsAndElseTheFirst) {
  GpuProbe probe = TwoGpus();
  probe.used = 1;
  MachineFacts facts;
  AddGpus(kLarge, probe, &facts);
  ASSERT_EQ(facts.gpus.size(), 2u);
  EXPECT_EQ(facts.gpus[facts.used_gpu].name, "large");
  EXPECT_EQ(facts.gpus[1].index, 1u);
  EXPECT_EQ(facts.why_no_gpu, "");
  facts = MachineFacts();
  AddGpus(kLarge, TwoGpus(), &facts);  // at an address that the library does not know
  EXPECT_EQ(facts.used_gpu, 0u);
  facts = MachineFacts();
  AddGpus(Status(ErrorCode::kNotFound, "CUDA shows none"), TwoGpus(), &facts);
  EXPECT_EQ(facts.gpus.size(), 2u);
  EXPECT_EQ(facts.why_no_gpu, "CUDA shows none");
}

TEST(Machine, AGpuWithoutAManagementLibraryIsWhatCudaSays) {
  GpuProbe probe;
  probe.driver = "no NVIDIA driver";
  MachineFacts facts;
  AddGpus(kLarge, probe, &facts);
  ASSERT_EQ(facts.gpus.size(), 1u);
  EXPECT_EQ(facts.gpus[0].name, "large");
  EXPECT_EQ(facts.gpus[0].memory_bytes, 1000u);
  EXPECT_EQ(facts.gpus[0].compute_capability, "9.0");
  EXPECT_NE(facts.gpu_driver, "no NVIDIA driver");
}

TEST(Machine, ProductsInBf16AreMeasuredWhereATableHasThem) {
  const WeightType type = {WeightKind::kInt4, WeightOffset::kNone, 32};
  for (const OpTable* table : AvailableTables()) {
    const Result<RateTrial> rate = MeasureBf16BatchOn(type, table->name, 1);
    EXPECT_EQ(rate.status().code(), CheckBf16(*table).code()) << table->name;
    if (rate.ok()) {
      EXPECT_GT(rate->bytes_per_s, 0) << table->name;
    }
  }
  EXPECT_EQ(MeasureBf16BatchOn(type, "mmx", 1).status().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
