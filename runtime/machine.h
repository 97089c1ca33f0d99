// What this machine is and how fast it is, as far as a plan needs it.
#ifndef SLUICE_RUNTIME_MACHINE_H_
#define SLUICE_RUNTIME_MACHINE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/status.h"
#include "formats/weight_type.h"
#include "kernels/ops.h"
#include "offload/device.h"
#include "offload/gpu_probe.h"
#include "runtime/load.h"

namespace sluice {

// Bytes of weights of one type that this machine's processors multiply with in a second.
struct MatmulRate {
  std::string type;  // WeightTypeName
  double one_token_bytes_per_s = 0;
  // Times the tokens: bytes x tokens per second, in a batch of kPrefillTokens.
  double batch_bytes_per_s = 0;
  double bf16_batch_bytes_per_s = 0;  // the same in bf16; 0: not measured
  Load load = {};                     // while they were measured
};

// One figure, and what else went on while it was measured.
struct RateTrial {
  double bytes_per_s = 0;
  Load load = {};
};

inline constexpr int64_t kPrefillTokens = 512;

// Measured for about a second, but for bf16: matrices larger than the caches, all threads;
// one_token_bytes_per_s is a mean over that time, as a run sees it.
// Error: kOutOfMemory.
Result<MatmulRate> MeasureMatmul(const WeightType& type, const OpTable& ops, int threads);
// The same with the table of that name. Errors: those of SelectTable too.
Result<MatmulRate> MeasureMatmulOn(const WeightType& type, const std::string& isa, int threads);
// bf16_batch_bytes_per_s of that table. Errors: those of SelectTable and CheckBf16; kOutOfMemory.
Result<RateTrial> MeasureBf16BatchOn(const WeightType& type, const std::string& isa, int threads);

// Bytes that `threads` threads verify in a second; 0 if there is no memory for it.
RateTrial MeasureVerification(int threads);

struct DriveRate {
  double bytes_per_s = 0;
  std::string description;  // "io_uring, O_DIRECT, registered buffers"
};
enum class DriveMethod : uint8_t { kAuto, kUring, kPread };
struct DriveTrial {
  DriveMethod method = DriveMethod::kAuto;
  int depth = 16;
  uint32_t chunk_bytes = 4u << 20;
  double seconds = 2;
  double begin = 0;  // where in the file, as a part of it
  // Reads go to the memory of those that have just finished, not to ever new memory.
  bool reuse_buffers = false;
};
// Reads of the file as streaming weights are read. Errors: kNotFound, kIo, kUnsupported,
// kInvalidArgument for a file of less than one chunk.
Result<DriveRate> MeasureDrive(const std::string& path, const DriveTrial& trial);

// What streaming has of the drive, as means over short windows in turn, which lie in different
// places of the file: a drive that is shared changes from second to second.
struct StreamingRates {
  double alone_bytes_per_s = 0;
  double busy_bytes_per_s = 0;  // while `threads` threads read memory
  Load load = {};
};
// For about four seconds. Errors: those of MeasureDrive.
Result<StreamingRates> MeasureStreaming(const std::string& path, int threads);

// Bytes per second that the threads read from memory with the widest loads that there are, the
// median of some passes; 0 if there is no memory for it.
RateTrial MeasureMemory(int threads);

// One line of `bench kernels`: a matrix of about 120 MiB, some tokens, beside what memory and the
// table's instructions give in the same moments: a machine that is shared is now slow, now fast, so
// each repetition is compared with the mean of what was measured right before and right after it.
struct KernelTrial {
  double seconds = 0;             // medians, of all threads
  double bytes = 0;               // of weights
  double operations = 0;          // two for each weight and token
  double memory_bytes_per_s = 0;  // read
  double arithmetic_per_s = 0;    // operations
  double memory_share = 0;        // of bytes / memory_bytes_per_s: medians of the repetitions
  double arithmetic_share = 0;
  double limit_share = 0;  // of the slower of the two
};
struct KernelCase {
  WeightType type;
  int64_t cols = 8192;
  int64_t tokens = 1;
  bool bf16 = false;  // the products that OpTable::matmul_bf16 computes
};
// Errors: as MeasureMatmulOn; CheckBf16.
Result<KernelTrial> MeasureKernel(const KernelCase& kernel, const std::string& isa, int threads);

struct GpuFacts {
  std::string name;
  uint64_t memory_bytes = 0;
  uint64_t free_bytes = 0;         // all where that is not known
  std::string compute_capability;  // "8.9"
  int pcie_generation = 0;         // 0: not known
  int pcie_width = 0;
  unsigned index = 0;       // as nvidia-smi counts, and CUDA with CUDA_DEVICE_ORDER=PCI_BUS_ID
  std::string pci_address;  // "00000000:01:00.0"; "": not known
};

struct MachineFacts {
  std::string cpu;
  int logical_processors = 0;
  int usable_cores = 0;
  std::vector<std::string> tables;  // that run, slowest first
  // Why a faster one that the processor advertises is not among them ("AMX: ..."); "" as a rule.
  std::string missing_table;
  uint64_t memory_bytes = 0;
  uint64_t available_bytes = 0;  // limits of control groups considered
  uint64_t lockable_bytes = 0;   // UINT64_MAX: no limit
  std::string huge_pages;        // "always", "madvise", "never", ""
  Status io_uring;               // ok, or why not and the cure
  std::vector<GpuFacts> gpus;    // all that the machine has
  size_t used_gpu = 0;           // of these, the one that an engine takes, unless:
  std::string why_no_gpu;        // CUDA has none of them for this program; "" as a rule
  std::string gpu_driver;        // version, or why there is none
  std::string gpu_cuda;          // the newest CUDA that the driver runs, "13.0"; "": not known
  std::string cuda_build;        // "CUDA 13.0: sm_89", or "none"
};

// The part of it that CUDA and the driver's management library tell: the engine takes the GPU that
// CUDA finds; where CUDA cannot say, the library's first is taken for it.
void AddGpus(const Result<CudaGpu>& cuda, const GpuProbe& probe, MachineFacts* facts);

// Whether the operations run on it: compute capability 8.0 or later.
bool IsSupportedGpu(const GpuFacts& gpu);

// Whether the driver runs this build's CUDA, as far as both are known: one of the same major
// version or a later one.
bool IsSupportedDriver(const MachineFacts& facts);

// The processor alone: to ask for GPUs starts CUDA, which takes its time.
MachineFacts ProbeProcessor();
MachineFacts ProbeMachine();

}  // namespace sluice

#endif  // SLUICE_RUNTIME_MACHINE_H_
