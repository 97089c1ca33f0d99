#include "runtime/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>

#include "formats/checked.h"
#include "formats/sluice_file.h"
#include "kernels/peak.h"
#include "kernels/select.h"
#include "offload/device.h"
#include "offload/gpu_probe.h"
#include "offload/host_arena.h"
#include "offload/processors.h"
#include "offload/read_rate.h"
#include "offload/storage.h"
#include "offload/system.h"
#include "runtime/activations.h"
#include "runtime/parallel.h"

namespace sluice {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kMatrixCols = 4096;
// Of a last cache of 32 MiB little is found again in a matrix of this size.
constexpr uint64_t kMatrixBytes = uint64_t{384} << 20;
constexpr uint64_t kVerifiedBytes = uint64_t{96} << 20;
constexpr uint64_t kBatchMatrixBytes = uint64_t{4} << 20;  // arithmetic alone
constexpr double kTrialSeconds = 0.2;
// A machine that is shared has slow and fast moments: a run sees their mean.
constexpr double kOneTokenSeconds = 0.8;
constexpr uint64_t kReadBytesPerThread = uint64_t{128} << 20;
constexpr uint64_t kReadPart = uint64_t{4} << 20;
constexpr uint64_t kKernelBytes = uint64_t{120} << 20;
constexpr double kKernelSeconds = 1;
constexpr size_t kLeastRepetitions = 5;
constexpr int64_t kPeakRounds = 200'000;
constexpr int kStreamingWindows = 4;
constexpr double kStreamingWindowSeconds = 0.5;

double MedianOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <typename Body>
double SecondsOf(const Body& body) {
  const auto begin = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Runs body until the time is over, twice at least; the median of its seconds.
template <typename Body>
double MedianSeconds(const Body& body) {
  std::vector<double> seconds;
  const auto start = Clock::now();
  body();  // warms up
  do {
    seconds.push_back(SecondsOf(body));
  } while (std::chrono::duration<double>(Clock::now() - start).count() < kTrialSeconds);
  return MedianOf(seconds);
}

// What else goes on as long as this lives, while so many threads compute (LoadBetween).
class LoadMeter {
 public:
  explicit LoadMeter(int threads)
      : threads_(std::min(threads, UsableCores())), before_(ReadLoad()) {}
  Load Take() const {
    return LoadBetween(before_, ReadLoad(), threads_,
                       static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  }

 private:
  const int threads_;
  const LoadReading before_;
};

// The mean of its seconds, over that time.
template <typename Body>
double MeanSeconds(double least_s, const Body& body) {
  body();  // warms up
  const auto start = Clock::now();
  int64_t times = 0;
  double seconds = 0;
  do {
    body();
    ++times;
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } while (seconds < least_s);
  return seconds / static_cast<double>(times);
}

// A matrix of some type and inputs for it. Bytes of 0x2c are small numbers in every float type.
class Trial {
 public:
  Trial(const WeightType& type, const OpTable& ops, int64_t tokens, uint64_t matrix_bytes,
        uint64_t cols = kMatrixCols, bool bf16 = false)
      : ops_(ops), tokens_(tokens), cols_(cols), bf16_(bf16) {
    layout_ = *MakeTileLayout(type, kTileRows, cols_, kTileRows);
    layout_ =
        *MakeTileLayout(type, matrix_bytes / layout_.tile_bytes * kTileRows, cols_, kTileRows);
  }

  Status Allocate() {
    Result<HostArena> weights = HostArena::Allocate(layout_.size_bytes);
    if (!weights.ok()) return weights.status();
    weights_.emplace(std::move(*weights));
    std::memset(weights_->bytes().data(), 0x2c, weights_->bytes().size());
    const auto cols = static_cast<size_t>(cols_);
    const auto tokens = static_cast<size_t>(tokens_);
    x_.resize(tokens * cols);
    for (size_t i = 0; i < x_.size(); ++i) x_[i] = static_cast<float>(i % 17) - 8;
    y_.resize(tokens * layout_.rows);
    if (bf16_) {
      const uint64_t padded = RoundUp(cols_, kBf16Channels);
      bf16_values_.resize(RoundUp(tokens, kBf16Tokens) * padded);
      x_bf16_ = {bf16_values_.data(), static_cast<int64_t>(padded)};
      ops_.round_bf16({x_.data(), static_cast<int64_t>(cols_), static_cast<int64_t>(cols_), tokens_,
                       x_bf16_, 0, tokens_},
                      nullptr);
      return Status();
    }
    values_.resize(tokens * static_cast<size_t>(QuantizedStride(static_cast<int64_t>(cols_))));
    scales_.resize(x_.size() / 16);
    sums_.resize(x_.size() / 16);
    quantized_ = {values_.data(),
                  scales_.data(),
                  sums_.data(),
                  ActivationGroup(layout_.type),
                  0,
                  QuantizedStride(static_cast<int64_t>(cols_))};
    quantized_.groups = CeilDiv(cols_, static_cast<uint64_t>(quantized_.group_size));
    if (ops_.activations(layout_.type) == ActivationForm::kQuantized) {
      ops_.quantize({x_.data(), static_cast<int64_t>(cols_), static_cast<int64_t>(cols_),
                     quantized_, 0, tokens_},
                    nullptr);
    }
    return Status();
  }

  void Run(ThreadTeam* team) {
    const auto tiles = static_cast<int64_t>(layout_.num_tiles);
    team->For(
        tiles, std::max<int64_t>(1, tiles / (team->threads() * 8)),
        [&](int64_t begin, int64_t end) {
          const auto matmul = bf16_ ? ops_.matmul_bf16 : ops_.matmul;
          matmul({.layout = &layout_,
                  .tiles =
                      weights_->bytes().data() + static_cast<uint64_t>(begin) * layout_.tile_bytes,
                  .num_tiles = end - begin,
                  .rows = (end - begin) * kTileRows,
                  .x = x_.data(),
                  .x_stride = static_cast<int64_t>(cols_),
                  .xq = &quantized_,
                  .tokens = tokens_,
                  .bias = nullptr,
                  .add_to_y = false,
                  .y = y_.data() + begin * kTileRows,
                  .y_stride = static_cast<int64_t>(layout_.rows),
                  .block_begin = 0,
                  .block_end = static_cast<int64_t>(CeilDiv(layout_.padded_cols, kBlockChannels)),
                  .x_bf16 = &x_bf16_},
                 nullptr);
        });
  }

  // MatmulRate::batch_bytes_per_s, if there are so many tokens.
  double BatchRate(ThreadTeam* team) {
    return size_bytes() * static_cast<double>(tokens_) / MedianSeconds([&] { Run(team); });
  }

  double weights() const { return static_cast<double>(layout_.rows * layout_.cols); }
  double size_bytes() const { return static_cast<double>(layout_.size_bytes); }

 private:
  const OpTable& ops_;
  int64_t tokens_;
  uint64_t cols_;
  bool bf16_;
  TileLayout layout_;
  std::optional<HostArena> weights_;
  std::vector<float> x_, y_, scales_;
  std::vector<int8_t> values_;
  std::vector<int32_t> sums_;
  QuantizedActivations quantized_ = {};
  std::vector<uint16_t> bf16_values_;
  Bf16Activations x_bf16_ = {};
};

// Reads all of some memory once, by all threads.
uint64_t ReadOnce(const PeakLoops& loops, std::span<const std::byte> memory, ThreadTeam* team) {
  std::atomic<uint64_t> sum = 0;
  team->For(static_cast<int64_t>(memory.size() / kReadPart), 1, [&](int64_t begin, int64_t) {
    sum += loops.read(memory.data() + static_cast<uint64_t>(begin) * kReadPart, kReadPart);
  });
  return sum;
}

// Threads that read memory as long as this lives, as multiplying with weights does.
class MemoryReaders {
 public:
  MemoryReaders(std::span<const std::byte> memory, int threads) {
    const PeakLoops loops = PeakLoopsOf(*AvailableTables().back());
    const size_t share = memory.size() / static_cast<size_t>(threads) / kReadPart * kReadPart;
    try {
      for (int i = 0; i < threads; ++i) {
        const auto own = memory.subspan(static_cast<size_t>(i) * share, share);
        threads_.emplace_back([this, loops, own] {
          uint64_t sum = 0;
          for (size_t part = 0; !stop_; part = (part + kReadPart) % own.size()) {
            sum += loops.read(own.data() + part, kReadPart);
          }
          sink_ += sum;
        });
      }
    } catch (const std::system_error&) {
      // A limit on threads: those that there are do the work.
    }
  }
  ~MemoryReaders() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> sink_ = 0;
  std::vector<std::thread> threads_;
};

std::string FirstLineWith(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t colon = line.find(':');
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// "always [madvise] never": the one in brackets.
std::string HugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  std::getline(file, line);
  const size_t begin = line.find('[');
  const size_t end = line.find(']');
  return begin == std::string::npos || end == std::string::npos
             ? ""
             : line.substr(begin + 1, end - begin - 1);
}

}  // namespace

Result<MatmulRate> MeasureMatmul(const WeightType& type, const OpTable& ops, int threads) {
  ThreadTeam team(threads);
  Trial one(type, ops, 1, kMatrixBytes);
  Trial batch(type, ops, kPrefillTokens, kBatchMatrixBytes);
  if (Status status = one.Allocate(); !status.ok()) return status;
  if (Status status = batch.Allocate(); !status.ok()) return status;
  MatmulRate rate;
  rate.type = WeightTypeName(type);
  const LoadMeter meter(threads);
  rate.one_token_bytes_per_s =
      one.size_bytes() / MeanSeconds(kOneTokenSeconds, [&] { one.Run(&team); });
  rate.batch_bytes_per_s = batch.BatchRate(&team);
  rate.load = meter.Take();
  return rate;
}

Result<MatmulRate> MeasureMatmulOn(const WeightType& type, const std::string& isa, int threads) {
  Result<const OpTable*> ops = SelectTable(isa);
  if (!ops.ok()) return ops.status();
  return MeasureMatmul(type, **ops, threads);
}

Result<RateTrial> MeasureBf16BatchOn(const WeightType& type, const std::string& isa, int threads) {
  Result<const OpTable*> ops = SelectTable(isa);
  if (!ops.ok()) return ops.status();
  if (Status s = CheckBf16(**ops); !s.ok()) return s;
  ThreadTeam team(threads);
  Trial batch(type, **ops, kPrefillTokens, kBatchMatrixBytes, kMatrixCols, /*bf16=*/true);
  if (Status status = batch.Allocate(); !status.ok()) return status;
  const LoadMeter meter(threads);
  const double rate = batch.BatchRate(&team);
  return RateTrial{rate, meter.Take()};
}

RateTrial MeasureVerification(int threads) {
  Result<HostArena> memory = HostArena::Allocate(kVerifiedBytes);
  if (!memory.ok()) return {};
  std::memset(memory->bytes().data(), 1, memory->bytes().size());
  ThreadTeam team(threads);
  std::atomic<uint64_t> sink = 0;
  const auto chunks = static_cast<int64_t>(kVerifiedBytes / kSluiceChunkBytes);
  const LoadMeter meter(threads);
  const double seconds = MedianSeconds([&] {
    team.For(chunks, 1, [&](int64_t begin, int64_t) {
      sink += HashBytes(memory->bytes().subspan(static_cast<size_t>(begin) * kSluiceChunkBytes,
                                                kSluiceChunkBytes));
    });
  });
  return {static_cast<double>(kVerifiedBytes) / seconds, meter.Take()};
}

Result<DriveRate> MeasureDrive(const std::string& path, const DriveTrial& trial) {
  ReadRateOptions options;
  options.method = trial.method == DriveMethod::kUring   ? IoMethod::kUring
                   : trial.method == DriveMethod::kPread ? IoMethod::kPread
                                                         : IoMethod::kAuto;
  options.depth = trial.depth;
  options.chunk_bytes = trial.chunk_bytes;
  options.seconds = trial.seconds;
  options.begin = trial.begin;
  options.reuse_buffers = trial.reuse_buffers;
  Result<ReadRate> rate = MeasureReadRate(path, options);
  if (!rate.ok()) return rate.status();
  return DriveRate{rate->bytes_per_s, rate->description};
}

Result<StreamingRates> MeasureStreaming(const std::string& path, int threads) {
  Result<HostArena> memory =
      HostArena::Allocate(kReadBytesPerThread * static_cast<uint64_t>(threads));
  if (!memory.ok()) return memory.status();
  std::memset(memory->bytes().data(), 1, memory->bytes().size());
  StreamingRates rates;
  DriveTrial trial;
  trial.seconds = kStreamingWindowSeconds;
  const LoadMeter meter(0);
  for (int window = 0; window < 2 * kStreamingWindows; ++window) {
    trial.begin = static_cast<double>(window) / (2 * kStreamingWindows);
    const bool busy = window % 2 == 1;
    std::optional<MemoryReaders> readers;
    if (busy) readers.emplace(memory->bytes(), threads);
    const Result<DriveRate> rate = MeasureDrive(path, trial);
    if (!rate.ok()) return rate.status();
    (busy ? rates.busy_bytes_per_s : rates.alone_bytes_per_s) +=
        rate->bytes_per_s / kStreamingWindows;
  }
  rates.load = meter.Take();
  return rates;
}

RateTrial MeasureMemory(int threads) {
  Result<HostArena> memory =
      HostArena::Allocate(kReadBytesPerThread * static_cast<uint64_t>(threads));
  if (!memory.ok()) return {};
  std::memset(memory->bytes().data(), 1, memory->bytes().size());
  const PeakLoops loops = PeakLoopsOf(*AvailableTables().back());
  ThreadTeam team(threads);
  std::atomic<uint64_t> sink = 0;
  const LoadMeter meter(threads);
  const double seconds = MedianSeconds([&] { sink += ReadOnce(loops, memory->bytes(), &team); });
  return {static_cast<double>(memory->bytes().size()) / seconds, meter.Take()};
}

Result<KernelTrial> MeasureKernel(const KernelCase& kernel, const std::string& isa, int threads) {
  Result<const OpTable*> ops = SelectTable(isa);
  if (!ops.ok()) return ops.status();
  if (Status s = kernel.bf16 ? CheckBf16(**ops) : Status(); !s.ok()) return s;
  Trial trial(kernel.type, **ops, kernel.tokens, kKernelBytes, static_cast<uint64_t>(kernel.cols),
              kernel.bf16);
  if (Status status = trial.Allocate(); !status.ok()) return status;
  Result<HostArena> memory =
      HostArena::Allocate(kReadBytesPerThread * static_cast<uint64_t>(threads));
  if (!memory.ok()) return memory.status();
  std::memset(memory->bytes().data(), 1, memory->bytes().size());
  const auto memory_bytes = static_cast<double>(memory->bytes().size());
  const PeakLoops loops = PeakLoopsOf(**ops);
  const auto arithmetic = kernel.bf16 ? loops.arithmetic_bf16 : loops.arithmetic;
  ThreadTeam team(threads);
  std::atomic<uint64_t> sink = 0;
  std::atomic<int64_t> operations = 0;
  // The limit is the machine's: read as fast as any table can.
  const PeakLoops fastest = PeakLoopsOf(*AvailableTables().back());
  const auto read_memory = [&] { sink += ReadOnce(fastest, memory->bytes(), &team); };
  const auto compute = [&] {
    operations = 0;
    team.For(16 * threads, 1, [&](int64_t, int64_t) { operations += arithmetic(kPeakRounds); });
  };
  KernelTrial result;
  result.bytes = trial.size_bytes();
  result.operations = 2 * trial.weights() * static_cast<double>(kernel.tokens);
  std::vector<double> seconds, rates, peaks, memory_shares, arithmetic_shares, limit_shares;
  trial.Run(&team);  // warms up
  double read_before = SecondsOf(read_memory);
  double compute_before = SecondsOf(compute);
  const auto start = Clock::now();
  do {
    const double own = SecondsOf([&] { trial.Run(&team); });
    const double read_after = SecondsOf(read_memory);
    const double compute_after = SecondsOf(compute);
    const double rate = 2 * memory_bytes / (read_before + read_after);
    const double peak = 2 * static_cast<double>(operations) / (compute_before + compute_after);
    seconds.push_back(own);
    rates.push_back(rate);
    peaks.push_back(peak);
    memory_shares.push_back(result.bytes / rate / own);
    arithmetic_shares.push_back(result.operations / peak / own);
    limit_shares.push_back(std::max(memory_shares.back(), arithmetic_shares.back()));
    read_before = read_after;
    compute_before = compute_after;
  } while (seconds.size() < kLeastRepetitions ||
           std::chrono::duration<double>(Clock::now() - start).count() < kKernelSeconds);
  result.seconds = MedianOf(seconds);
  result.memory_bytes_per_s = MedianOf(rates);
  result.arithmetic_per_s = MedianOf(peaks);
  result.memory_share = MedianOf(memory_shares);
  result.arithmetic_share = MedianOf(arithmetic_shares);
  result.limit_share = MedianOf(limit_shares);
  return result;
}

bool IsSupportedGpu(const GpuFacts& gpu) {
  constexpr int kOldestMajor = 8;
  return std::atoi(gpu.compute_capability.c_str()) >= kOldestMajor;
}

bool IsSupportedDriver(const MachineFacts& facts) {
  constexpr std::string_view kBuild = "CUDA ";
  if (facts.gpu_cuda.empty() || !facts.cuda_build.starts_with(kBuild)) return true;
  return std::atoi(facts.gpu_cuda.c_str()) >= std::atoi(facts.cuda_build.c_str() + kBuild.size());
}

void AddGpus(const Result<CudaGpu>& cuda, const GpuProbe& probe, MachineFacts* facts) {
  facts->gpu_driver = probe.driver;
  facts->gpu_cuda = probe.cuda;
  for (const GpuInfo& gpu : probe.gpus) {
    facts->gpus.push_back({gpu.name, gpu.memory_bytes, gpu.free_bytes, gpu.compute_capability,
                           gpu.pcie_generation, gpu.pcie_width, gpu.index, gpu.pci_address});
  }
  facts->used_gpu = probe.used.value_or(0);
  if (!cuda.ok()) {
    facts->why_no_gpu = cuda.status().message();
    return;
  }
  // Some containers have CUDA without the management library.
  if (!facts->gpus.empty()) return;
  facts->gpu_driver = "of unknown version (its management library is missing)";
  facts->gpus.push_back({.name = cuda->name,
                         .memory_bytes = cuda->memory_bytes,
                         .free_bytes = cuda->memory_bytes,
                         .compute_capability = cuda->compute_capability,
                         .pci_address = cuda->pci_address});
}

MachineFacts ProbeProcessor() {
  MachineFacts facts;
  facts.cpu = FirstLineWith("/proc/cpuinfo", "model name");
  facts.logical_processors = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  facts.usable_cores = UsableCores();
  for (const OpTable* table : AvailableTables()) facts.tables.emplace_back(table->name);
  facts.missing_table = FallbackReason();
  return facts;
}

MachineFacts ProbeMachine() {
  MachineFacts facts = ProbeProcessor();
  facts.memory_bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  facts.available_bytes = AvailableMemoryBytes();
  rlimit limit = {};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  facts.lockable_bytes =
      limit.rlim_cur == RLIM_INFINITY || geteuid() == 0 ? UINT64_MAX : limit.rlim_cur;
  facts.huge_pages = HugePages();
  facts.io_uring = ProbeUring();
  facts.cuda_build = CudaBuildDescription();
  const Result<CudaGpu> cuda = FindCudaGpu(kUsedGpu);
  AddGpus(cuda, ProbeGpus(cuda.ok() ? &*cuda : nullptr), &facts);
  return facts;
}

}  // namespace sluice
