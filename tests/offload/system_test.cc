// Limits of memory and processors, from files as the kernel writes them.
#include "offload/system.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "offload/processors.h"
#include "tests/support/scratch_directory.h"

namespace sluice {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

class SystemTest : public testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root() const { return scratch_.path(); }

 private:
  ScratchDirectory scratch_;
};

TEST_F(SystemTest, MemoryWithoutAGroupIsWhatTheKernelCallsAvailable) {
  Write("/proc/meminfo",
        "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:  8388608 kB\n");
  EXPECT_EQ(AvailableMemoryBytes(root()), 8 * kGiB);
}

TEST_F(SystemTest, TheTightestGroupOfVersion2OnTheWayUpCounts) {
  Write("/proc/meminfo", "MemAvailable:  16777216 kB\n");
  Write("/proc/self/cgroup", "0::/user/job\n");
  Write("/sys/fs/cgroup/user/job/memory.max", "max\n");
  Write("/sys/fs/cgroup/user/job/memory.current", "1073741824\n");
  Write("/sys/fs/cgroup/user/memory.max", "4294967296\n");
  Write("/sys/fs/cgroup/user/memory.current", "2147483648\n");
  Write("/sys/fs/cgroup/user/memory.stat", "anon 1\ninactive_file 1073741824\nactive_file 5\n");
  EXPECT_EQ(AvailableMemoryBytes(root()), 3 * kGiB);  // 4 less 2, of which 1 is page cache
}

TEST_F(SystemTest, AGroupOfVersion1ThatIsOverItsLimitLeavesNothing) {
  Write("/proc/meminfo", "MemAvailable:  16777216 kB\n");
  Write("/proc/self/cgroup", "9:memory:/box\n3:cpu,cpuacct:/box\n");
  Write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1000\n");
  Write("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "4000\n");
  Write("/sys/fs/cgroup/memory/box/memory.stat", "total_inactive_file 10\n");
  EXPECT_EQ(AvailableMemoryBytes(root()), 0u);
}

TEST_F(SystemTest, SiblingsOfOneCoreCountOnce) {
  const std::string cpu = "/sys/devices/system/cpu/cpu";
  for (int i = 0; i < 8; ++i) {  // 2 packages of 2 cores of 2 threads
    Write(cpu + std::to_string(i) + "/topology/core_id", std::to_string(i / 2 % 2) + "\n");
    Write(cpu + std::to_string(i) + "/topology/physical_package_id", std::to_string(i / 4) + "\n");
  }
  const int all[] = {0, 1, 2, 3, 4, 5, 6, 7};
  using Cores = std::vector<std::vector<int>>;
  EXPECT_EQ(CoresOf(all, root()), (Cores{{0, 1}, {2, 3}, {4, 5}, {6, 7}}));
  const int some[] = {0, 1, 5};
  EXPECT_EQ(CoresOf(some, root()), (Cores{{0, 1}, {5}}));
}

TEST_F(SystemTest, ProcessorsWithoutATopologyCountEach) {
  const int cpus[] = {3, 4, 9};
  EXPECT_EQ(CoresOf(cpus, root()), (std::vector<std::vector<int>>{{3}, {4}, {9}}));
  EXPECT_TRUE(CoresOf({}, root()).empty());
}

TEST_F(SystemTest, AQuotaOfProcessorTimeIsRoundedUp) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(ProcessorQuota(root()), std::numeric_limits<int>::max());
  Write("/sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  EXPECT_EQ(ProcessorQuota(root()), 3);
  Write("/sys/fs/cgroup/a/b/cpu.max", "5000 100000\n");
  EXPECT_EQ(ProcessorQuota(root()), 1);
}

TEST_F(SystemTest, AQuotaOfVersion1AndItsAbsence) {
  Write("/proc/self/cgroup", "4:cpu,cpuacct:/box\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(ProcessorQuota(root()), std::numeric_limits<int>::max());
  Write("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(ProcessorQuota(root()), 4);
}

TEST_F(SystemTest, ThisMachineHasACore) { EXPECT_GE(UsableCores(), 1); }

}  // namespace
}  // namespace sluice
