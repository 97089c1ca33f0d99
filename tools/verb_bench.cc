// sluice bench: speed of a model, of the drive, or of the kernels, and its share of what the
// machine allows.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>

#include "runtime/machine.h"
#include "tools/bench_table.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/open_model.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

constexpr uint64_t kReadUnit = 4096;
constexpr uint64_t kMostReadBytes = uint64_t{64} << 20;
constexpr int64_t kMostDepth = 1024;
constexpr int kIoWindows = 3;

struct BenchOptions {
  ModelOptions model;  // its name, or "io"
  std::string file;
  int64_t prompt_tokens = 512;
  int64_t new_tokens = 32;
  int64_t repeats = 5;
  int64_t sequences = 1;
  bool reuse_buffers = false;
  uint64_t read_bytes = 0;  // one setting only, with depth
  int64_t depth = 0;
  double seconds = 1.2;  // of a setting
  std::string format = "md";
};

DriveMethod ToDriveMethod(const std::string& io) {
  return io == "uring"   ? DriveMethod::kUring
         : io == "pread" ? DriveMethod::kPread
                         : DriveMethod::kAuto;
}

struct IoSetting {
  uint32_t read_bytes = 0;
  int depth = 0;
};

// What the options name, or those among which the best is sought: fio's usual depths, and longer
// reads, which streaming asks for.
std::vector<IoSetting> IoSettings(const BenchOptions& options) {
  if (options.read_bytes > 0 || options.depth > 0) {
    return {{static_cast<uint32_t>(options.read_bytes > 0 ? options.read_bytes : 1u << 20),
             static_cast<int>(options.depth > 0 ? options.depth : 16)}};
  }
  std::vector<IoSetting> settings;
  for (const int depth : {1, 2, 4, 8, 16, 32, 64}) settings.push_back({1u << 20, depth});
  for (const int depth : {1, 4, 16}) settings.push_back({4u << 20, depth});
  return settings;
}

Status CheckIoOptions(const BenchOptions& options) {
  if (options.file.empty()) {
    return Status(ErrorCode::kInvalidArgument, "bench io needs a FILE on the drive to be measured");
  }
  if (options.read_bytes % kReadUnit != 0 || options.read_bytes > kMostReadBytes) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("--read-size {}: reads are multiples of {} bytes, {} at most",
                              options.read_bytes, kReadUnit, kMostReadBytes));
  }
  if (options.depth > kMostDepth) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("--depth {}: {} reads at most are on their way", options.depth, kMostDepth));
  }
  return Status();
}

// Each setting in several windows, the settings in turn, so that a slow second of the drive falls
// upon all of them; the mean of its windows stands for a setting.
Status BenchIo(const BenchOptions& options) {
  if (Status status = CheckIoOptions(options); !status.ok()) return status;
  const std::vector<IoSetting> settings = IoSettings(options);
  std::vector<BenchRow> rows(settings.size());
  double begin = 0;
  for (int window = 0; window < kIoWindows; ++window) {
    for (size_t i = 0; i < settings.size(); ++i) {
      if (Interrupted()) return InterruptedStatus();
      Result<DriveRate> rate = MeasureDrive(
          options.file, {ToDriveMethod(options.model.io), settings[i].depth, settings[i].read_bytes,
                         options.seconds / kIoWindows, begin, options.reuse_buffers});
      if (!rate.ok()) return rate.status();
      rows[i].name =
          fmt::format("{} KiB, {} on the way", settings[i].read_bytes >> 10, settings[i].depth);
      rows[i].bytes_per_s = rows[i].bytes_per_s.value_or(0) + rate->bytes_per_s / kIoWindows;
      rows[i].note = rate->description;
      begin = begin > 0.9 ? 0 : begin + 0.077;
    }
  }
  const auto best = std::max_element(
      rows.begin(), rows.end(),
      [](const BenchRow& a, const BenchRow& b) { return a.bytes_per_s < b.bytes_per_s; });
  BenchRow summary = *best;
  summary.name = "best: " + best->name;
  rows.push_back(std::move(summary));
  return WriteStdout(FormatBenchRows(rows, options.format));
}

// Matrices of the shapes of a large model against what memory and arithmetic allow, measured in the
// same run: the limit of a line is the slower of the two.
Status BenchKernels(const BenchOptions& options) {
  if (options.model.prefill == "f16") {
    return Status(ErrorCode::kInvalidArgument,
                  "bench kernels measures the processor's, which have no products in f16");
  }
  const MachineFacts facts = ProbeProcessor();
  const std::string isa = options.model.isa.empty() ? facts.tables.back() : options.model.isa;
  const int threads = options.model.threads > 0 ? options.model.threads : facts.usable_cores;
  const WeightType types[] = {{WeightKind::kInt4, WeightOffset::kZeroPoint, 128},
                              {WeightKind::kInt4, WeightOffset::kNone, 32},
                              {WeightKind::kInt4, WeightOffset::kMinimum, 32},
                              {WeightKind::kInt8, WeightOffset::kNone, 32},
                              {WeightKind::kInt5, WeightOffset::kNone, 32},
                              {WeightKind::kQ4K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ5K, WeightOffset::kMinimum, 32},
                              {WeightKind::kQ6K, WeightOffset::kNone, 16},
                              {WeightKind::kF16, WeightOffset::kNone, 0}};
  const bool bf16 = options.model.prefill == "bf16";
  std::vector<BenchRow> rows;
  for (const WeightType& type : types) {
    // A gate and a down projection of 70 billion weights; the longer rows once.
    for (const int64_t cols : {8192, 28672}) {
      if (cols != 8192 && type.kind != WeightKind::kInt4) continue;
      for (const int64_t tokens : {1, 2, 4, 8, 16, 32, 512}) {
        if (Interrupted()) return InterruptedStatus();
        Result<KernelTrial> trial = MeasureKernel({type, cols, tokens, bf16}, isa, threads);
        if (!trial.ok()) return trial.status();
        BenchRow row;
        row.name = fmt::format("matmul{} {} {}, {} columns, x{}", bf16 ? " in bf16" : "", isa,
                               WeightTypeName(type), cols, tokens);
        row.tokens_per_s = static_cast<double>(tokens) / trial->seconds;
        row.bytes_per_s = trial->bytes / trial->seconds;
        row.limit = *row.tokens_per_s / trial->limit_share;
        row.share_of_limit = trial->limit_share;
        row.note =
            fmt::format("{:.2f} of memory's {:.1f} GB/s, {:.2f} of arithmetic's {:.0f} GOP/s",
                        trial->memory_share, trial->memory_bytes_per_s / 1e9,
                        trial->arithmetic_share, trial->arithmetic_per_s / 1e9);
        rows.push_back(std::move(row));
      }
    }
  }
  return WriteStdout(FormatBenchRows(rows, options.format));
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What the slowest tier allows: each byte of weights is read once for each token.
std::optional<double> DecodeLimit(const EngineInfo& info, const std::string& path,
                                  double* bytes_per_s) {
  if (info.streamed_bytes > 0) {
    Result<DriveRate> rate = MeasureDrive(path, DriveTrial{});
    if (!rate.ok()) return std::nullopt;
    *bytes_per_s = rate->bytes_per_s;
    return rate->bytes_per_s / static_cast<double>(info.streamed_bytes);
  }
  *bytes_per_s = MeasureMemory(info.threads).bytes_per_s;
  const uint64_t bytes = info.resident_bytes > 0 ? info.resident_bytes : info.weight_bytes;
  return *bytes_per_s / static_cast<double>(bytes);
}

Request TrialRequest(const BenchOptions& options, int64_t vocab_size, int64_t number) {
  Request request;
  for (int64_t i = 0; i < options.prompt_tokens; ++i) {
    request.prompt.push_back(static_cast<int32_t>((i * 7919 + number * 104729) % vocab_size));
  }
  request.sampling.temperature = 0;
  request.max_new_tokens = options.new_tokens;
  request.ignore_eos = true;
  return request;
}

struct TrialRate {
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;  // of all sequences together
};

Result<TrialRate> OneSequence(const BenchOptions& options, Engine* engine, int64_t number) {
  Result<Completion> completion =
      engine->Generate(TrialRequest(options, engine->info().vocab_size, number), nullptr);
  if (Interrupted()) return InterruptedStatus();
  if (!completion.ok()) return completion.status();
  return TrialRate{completion->timings.prefill_tokens_per_s(),
                   completion->timings.decode_tokens_per_s()};
}

// All sequences begin together; decoding is timed from the pass after the one that gave the last of
// them its first token, to the one that ends the first of them.
Result<TrialRate> SeveralSequences(const BenchOptions& options, Engine* engine, int64_t number) {
  using Clock = std::chrono::steady_clock;
  std::vector<int64_t> made(static_cast<size_t>(options.sequences), 0);
  std::vector<uint64_t> requests;
  for (int64_t s = 0; s < options.sequences; ++s) {
    const int64_t id = number * options.sequences + s;
    const Result<uint64_t> request =
        engine->Submit(TrialRequest(options, engine->info().vocab_size, id), [&made, s](auto&) {
          ++made[static_cast<size_t>(s)];
          return true;
        });
    if (!request.ok()) return request.status();
    requests.push_back(*request);
  }
  const auto begin = Clock::now();
  std::optional<Clock::time_point> all_decode;
  std::optional<Clock::time_point> first_ends;
  int64_t before = 0;
  int64_t after = 0;
  for (bool more = true; more;) {
    Result<bool> step = engine->Step();
    if (Interrupted()) return InterruptedStatus();
    if (!step.ok()) return step.status();
    more = *step;
    const int64_t total = std::accumulate(made.begin(), made.end(), int64_t{0});
    if (!all_decode && *std::min_element(made.begin(), made.end()) > 0) {
      all_decode = Clock::now();
      before = total;
    }
    if (!first_ends && *std::max_element(made.begin(), made.end()) == options.new_tokens) {
      first_ends = Clock::now();
      after = total;
    }
  }
  for (uint64_t request : requests) engine->TakeCompletion(request);
  if (!all_decode || !first_ends || after <= before) {
    return Status(ErrorCode::kInvalidArgument,
                  "some sequences ended before all had begun: take more tokens");
  }
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  const auto prompts = static_cast<double>(options.prompt_tokens * options.sequences);
  return TrialRate{prompts / seconds(*all_decode - begin),
                   static_cast<double>(after - before) / seconds(*first_ends - *all_decode)};
}

BenchRow DecodeRow(const BenchOptions& options, const EngineInfo& info, const std::string& path,
                   double tokens_per_s) {
  const auto sequences = static_cast<double>(options.sequences);
  const uint64_t pass_bytes = info.streamed_bytes > 0   ? info.streamed_bytes
                              : info.resident_bytes > 0 ? info.resident_bytes
                                                        : info.weight_bytes;
  double bytes_per_s = 0;
  BenchRow row;
  row.name = fmt::format("decode of {} tokens", options.new_tokens);
  if (options.sequences > 1) row.name += fmt::format(", {} sequences", options.sequences);
  row.tokens_per_s = tokens_per_s;
  row.bytes_per_s = tokens_per_s / sequences * static_cast<double>(pass_bytes);
  if (!info.gpu.empty()) {
    row.note = "weights in GPU memory, whose rate tools/bench/gpu_bench measures";
    return row;
  }
  row.limit = DecodeLimit(info, path, &bytes_per_s);
  if (row.limit) *row.limit *= sequences;
  if (row.limit) row.share_of_limit = tokens_per_s / *row.limit;
  row.note = fmt::format("limit: {} at {:.2f} GB/s", info.streamed_bytes > 0 ? "disk" : "memory",
                         bytes_per_s / 1e9);
  return row;
}

Status BenchModel(const BenchOptions& options) {
  ModelOptions model = options.model;
  if (model.context_tokens == 0) model.context_tokens = options.prompt_tokens + options.new_tokens;
  model.max_sequences = options.sequences;
  std::string path;
  Result<std::unique_ptr<Engine>> engine = OpenModel(model, &path);
  if (!engine.ok()) return engine.status();
  const CancelOnInterrupt cancel(engine->get());
  std::vector<double> prefill, decode;
  for (int64_t repeat = 0; repeat < options.repeats; ++repeat) {
    Result<TrialRate> rate = options.sequences == 1
                                 ? OneSequence(options, engine->get(), repeat)
                                 : SeveralSequences(options, engine->get(), repeat);
    if (!rate.ok()) return rate.status();
    prefill.push_back(rate->prefill_tokens_per_s);
    decode.push_back(rate->decode_tokens_per_s);
  }
  if (Status s = WriteTraceIfWanted(model, **engine); !s.ok()) return s;
  BenchRow row;
  row.name = fmt::format("prefill of {} tokens{}", options.prompt_tokens * options.sequences,
                         model.prefill == "int8" ? "" : " in " + model.prefill);
  row.tokens_per_s = Median(prefill);
  return WriteStdout(FormatBenchRows(
      {row, DecodeRow(options, (*engine)->info(), path, Median(decode))}, options.format));
}

}  // namespace

void AddBenchVerb(Cli* cli) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* verb = cli->AddVerb(
      "bench",
      "Measures the speed of a model, the drive or the kernels against what the machine allows",
      "  sluice bench model.sluice\n"
      "  sluice bench model.sluice --ram 4G --prompt-tokens 64 -o json\n"
      "  sluice bench io model.sluice\n"
      "  sluice bench kernels --isa avx2\n"
      "  sluice bench kernels --isa amx --prefill bf16\n",
      [options] {
        if (options->model.model == "io") return BenchIo(*options);
        if (options->model.model == "kernels") return BenchKernels(*options);
        return BenchModel(*options);
      });
  AddModelOptions(verb, &options->model, "Context length (default: what the measurement needs)");
  SetDescription(verb, "MODEL", "A model as for run, or the word io or kernels");
  AddTextOption(verb, "FILE", &options->file, "io: a file on the drive to be measured");
  AddFlag(verb, "--reuse-buffers", &options->reuse_buffers,
          "io: read into memory that may lie in a cache, as fio does, not as streaming does");
  AddSizeOption(verb, "--read-size", &options->read_bytes,
                "io: bytes of a read (default: several sizes and depths)");
  AddCountOption(verb, "--depth", &options->depth,
                 "io: reads on their way at once (default: several)");
  AddNumberOption(verb, "--seconds", &options->seconds, 0.01, 3600, "from 0.01 to 3600",
                  "io: that a setting is measured for (0.01 to 3600)")
      .ShowDefault();
  AddCountOption(verb, "--prompt-tokens", &options->prompt_tokens, "Length of the prompt")
      .ShowDefault();
  AddCountOption(verb, "-n,--max-tokens", &options->new_tokens, "Tokens that are decoded")
      .ShowDefault();
  AddCountOption(verb, "--repeats", &options->repeats, "The median of so many").ShowDefault();
  AddCountOption(verb, "--sequences", &options->sequences, "Prompts that are answered side by side")
      .ShowDefault();
  AddChoiceOption(verb, "-o,--output", &options->format, {"md", "csv", "json"},
                  "Form of the table");
}

}  // namespace sluice
