// Every operation of every CPU table at shapes of large models, by Google Benchmark: bytes and
// operations a second, and their shares of what memory and the table's arithmetic give to the same
// threads right before and right after (a machine that is shared changes within seconds).
//
// Usage: kernels_benchmark [--threads=N] [Google Benchmark's options]
//   --benchmark_filter='^attention/.*/avx512$'   names are operation/shape/table
//   --benchmark_repetitions=5 --benchmark_report_aggregates_only=true --benchmark_out=FILE.json
// Threads divide an operation as the engine does; default: one.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/peak.h"
#include "kernels/select.h"
#include "offload/host_arena.h"
#include "tools/bench/kernel_work.h"

namespace sluice {
namespace {

constexpr int64_t kWidth = 8192;  // of a model of 70 billion weights
constexpr int64_t kFfn = 28672;

double SecondsOf(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What memory and arithmetic give now.
class Limits {
 public:
  explicit Limits(ThreadTeam* team) : team_(team) {
    Result<HostArena> memory =
        HostArena::Allocate(kBytesPerThread * static_cast<uint64_t>(team->threads()));
    if (!memory.ok()) return;
    memory_ = std::make_unique<HostArena>(std::move(*memory));
    std::memset(memory_->bytes().data(), 1, memory_->bytes().size());
  }

  // Medians of three.
  double BytesPerSecond() const {
    if (memory_ == nullptr) return 0;
    return MedianOfThree([&] { return ReadOnce(); });
  }
  double OperationsPerSecond(const OpTable& table, Peak peak) const {
    return MedianOfThree([&] { return ComputeOnce(table, peak); });
  }

 private:
  template <typename Measure>
  static double MedianOfThree(const Measure& measure) {
    double values[] = {measure(), measure(), measure()};
    std::sort(std::begin(values), std::end(values));
    return values[1];
  }

  double ReadOnce() const {
    const PeakLoops loops = PeakLoopsOf(*AvailableTables().back());
    const auto bytes = memory_->bytes();
    std::atomic<uint64_t> sink = 0;
    const double seconds = SecondsOf([&] {
      team_->For(static_cast<int64_t>(bytes.size() / kPart), 1, [&](int64_t begin, int64_t) {
        sink += loops.read(bytes.data() + static_cast<uint64_t>(begin) * kPart, kPart);
      });
    });
    return static_cast<double>(bytes.size()) / seconds;
  }

  double ComputeOnce(const OpTable& table, Peak peak) const {
    const PeakLoops loops = PeakLoopsOf(table);
    const auto loop = peak == Peak::kInteger ? loops.arithmetic
                      : peak == Peak::kBf16  ? loops.arithmetic_bf16
                                             : loops.arithmetic_f32;
    std::atomic<int64_t> operations = 0;
    const double seconds = SecondsOf([&] {
      team_->For(16 * team_->threads(), 1, [&](int64_t, int64_t) { operations += loop(kRounds); });
    });
    return static_cast<double>(operations) / seconds;
  }

  static constexpr uint64_t kBytesPerThread = uint64_t{128} << 20;
  static constexpr uint64_t kPart = uint64_t{1} << 20;
  static constexpr int64_t kRounds = 20000;

  ThreadTeam* team_;
  std::unique_ptr<HostArena> memory_;
};

void Run(benchmark::State& state, const OpTable& table, const Prepare& prepare,
         const Limits& limits, ThreadTeam* team) {
  const Work work = prepare(table);
  if (!work.status.ok()) {
    state.SkipWithError(work.status.message().c_str());
    return;
  }
  const bool arithmetic = work.operations > 0;
  work.RunOn(team);  // pages and caches are there
  double memory = limits.BytesPerSecond();
  double peak = arithmetic ? limits.OperationsPerSecond(table, work.peak) : 0;
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) work.RunOn(team);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  memory = (memory + limits.BytesPerSecond()) / 2;
  if (arithmetic) peak = (peak + limits.OperationsPerSecond(table, work.peak)) / 2;
  const auto times = static_cast<double>(state.iterations());
  state.counters["GB/s"] = work.bytes * times / seconds / 1e9;
  if (memory > 0) state.counters["of_memory"] = work.bytes * times / seconds / memory;
  if (!arithmetic) return;
  state.counters["GOP/s"] = work.operations * times / seconds / 1e9;
  state.counters["of_arithmetic"] = work.operations * times / seconds / peak;
}

struct Entry {
  std::string name;
  Prepare prepare;
  bool slow_for_ref = false;
};

void AddMatmuls(std::vector<Entry>* entries) {
  const WeightType types[] = {{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                              {WeightKind::kInt4, WeightOffset::kNone, 64},
                              {WeightKind::kInt4, WeightOffset::kNone, 32},
                              {WeightKind::kInt4, WeightOffset::kMinimum, 32},
                              {WeightKind::kInt8, WeightOffset::kNone, 32},
                              {WeightKind::kInt8, WeightOffset::kNone, 0},
                              {WeightKind::kInt5, WeightOffset::kNone, 32},
                              {WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ5K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ6K, WeightOffset::kNone, 16},
                              {WeightKind::kF16, WeightOffset::kNone, 0},
                              {WeightKind::kBF16, WeightOffset::kNone, 0},
                              {WeightKind::kF32, WeightOffset::kNone, 0}};
  for (const WeightType& type : types) {
    // 120 MiB and more for one token; arithmetic alone decides over 512.
    for (const int64_t tokens : {1, 2, 4, 8, 16, 32, 512}) {
      const int64_t rows = tokens == 512 ? 2048 : kFfn;
      const std::string shape =
          fmt::format("{}x{} {} x{}", rows, kWidth, WeightTypeName(type), tokens);
      entries->push_back(
          {"matmul/" + shape, Matmul(type, rows, kWidth, tokens, false), tokens > 16});
      if (tokens == 512) {
        entries->push_back(
            {"matmul_bf16/" + shape, Matmul(type, rows, kWidth, tokens, true), true});
      }
    }
  }
}

void AddAttention(std::vector<Entry>* entries) {
  constexpr Heads kGqa = {64, 8, 128};
  constexpr Heads kMha = {32, 32, 128};
  constexpr Heads kMqa = {32, 1, 128};
  constexpr Heads kSmall = {9, 3, 64};
  const auto add = [&](const std::string& what, const Attend& c) {
    entries->push_back({fmt::format("attention/{} {}:{}x{} x{} behind {}", what, c.heads.query,
                                    c.heads.kv, c.heads.dim, c.tokens, c.context - c.tokens),
                        Attention(c), c.tokens * c.context > 100000});
  };
  for (const int64_t context : {512, 4096, 16384}) add("GQA", {kGqa, 1, context});
  for (const int64_t context : {4096, 16384}) {
    add("GQA split", {kGqa, 1, context, 0, false, /*split=*/true});
  }
  add("MHA", {kMha, 1, 4096});
  add("MQA", {kMqa, 1, 4096});
  add("GQA", {kSmall, 1, 4096});
  add("GQA", {kGqa, 8, 4096});
  add("GQA", {kGqa, 128, 512});
  add("GQA", {kGqa, 128, 4096});
  add("GQA window 1024", {kGqa, 1, 16384, 1024});
  add("GQA tree", {kGqa, 32, 4096, 0, /*tree=*/true});
}

void AddRows(std::vector<Entry>* entries) {
  for (const int64_t tokens : {1, 512}) {
    const auto add = [&](const std::string& name, int64_t width, double streams,
                         const RowCall& call) {
      entries->push_back(
          {fmt::format("{}{} x{}", name, width, tokens), OnRows(tokens, width, streams, call)});
    };
    entries->push_back({fmt::format("quantize/int8 groups of 32 {} x{}", kWidth, tokens),
                        Quantize(tokens, kWidth)});
    add("rms_norm/", kWidth, 2,
        [](const OpTable& table, float* x, float* y, float* w, int64_t begin, int64_t end) {
          table.rms_norm({x, kWidth, w, kWidth, 1e-5F, false, y, kWidth, begin, end}, nullptr);
        });
    add("layer_norm/", kWidth, 2,
        [](const OpTable& table, float* x, float* y, float* w, int64_t begin, int64_t end) {
          table.layer_norm({x, kWidth, w, w, kWidth, 1e-5F, y, kWidth, begin, end}, nullptr);
        });
    add("scale_add/", kWidth, 3,
        [](const OpTable& table, float* x, float* y, float*, int64_t begin, int64_t end) {
          table.scale_add({y, kWidth, 0.5F, x, kWidth, kWidth, begin, end}, nullptr);
        });
    for (const auto& [activation, name] :
         {std::pair{Activation::kSilu, "silu"}, std::pair{Activation::kGeluTanh, "gelu_tanh"}}) {
      add(fmt::format("activate/{} ", name), kFfn, 3,
          [activation = activation](const OpTable& table, float* x, float* y, float*, int64_t begin,
                                    int64_t end) {
            table.activate({activation, x, x, kFfn, kFfn, y, kFfn, begin, end}, nullptr);
          });
    }
    add("softcap/", kFfn, 2,
        [](const OpTable& table, float* x, float*, float*, int64_t begin, int64_t end) {
          table.softcap({x, 30, begin * kFfn, end * kFfn}, nullptr);
        });
    entries->push_back(
        {fmt::format("rope/64 heads of 128 x{}", tokens), Rope({64, 64, 128}, tokens)});
    entries->push_back(
        {fmt::format("store_kv/8 heads of 128 x{}", tokens), StoreKv({64, 8, 128}, tokens)});
    entries->push_back(
        {fmt::format("gather_rows/int4:g32 {} x{}", kWidth, tokens),
         GatherRows({WeightKind::kInt4, WeightOffset::kNone, 32}, 16384, kWidth, tokens)});
    entries->push_back(
        {fmt::format("round_bf16/{} x{}", kWidth, tokens), RoundBf16(tokens, kWidth)});
  }
}

int Main(int argc, char** argv) {
  int threads = 1;
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    constexpr std::string_view kOption = "--threads=";
    if (std::string_view(argv[i]).starts_with(kOption)) {
      threads = std::atoi(argv[i] + kOption.size());
    } else {
      rest.push_back(argv[i]);
    }
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (threads < 1 || benchmark::ReportUnrecognizedArguments(count, rest.data())) {
    fmt::print(stderr, "kernels_benchmark [--threads=N] [options of Google Benchmark]\n");
    return 2;
  }
  ThreadTeam team(threads);
  const Limits limits(&team);
  std::vector<Entry> entries;
  AddMatmuls(&entries);
  AddAttention(&entries);
  AddRows(&entries);
  for (const Entry& entry : entries) {
    for (const OpTable* table : AvailableTables()) {
      if (table == &kRefTable && entry.slow_for_ref) continue;
      benchmark::RegisterBenchmark((entry.name + "/" + table->name).c_str(),
                                   [&entry, table, &limits, &team](benchmark::State& state) {
                                     Run(state, *table, entry.prepare, limits, &team);
                                   })
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::Main(argc, argv); }
