#include "tools/machine_rates.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <utility>

#include "formats/mapped_file.h"
#include "formats/strict_json.h"
#include "tools/model_cache.h"
#include "tools/output.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxCacheBytes = 1 << 20;
// To be raised with kernels that are faster or slower than those that were measured.
constexpr int kKernelsRevision = 4;
// Of all measurements of a plan that were disturbed, but for the drive's, which take longer.
constexpr int kRepeats = 4;
constexpr int kDriveRepeats = 1;
constexpr double kAssumedDriveBytesPerS = 2e9;  // an NVMe drive of the cheaper kind
// As plan --json writes them.
constexpr char kBf16BatchKey[] = "bf16_batch_bytes_per_s";
constexpr char kBusyKey[] = "measured_while_busy";

// 0 if it is no rate.
double RateIn(const Json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return 0;
  const auto rate = found->get<double>();
  return std::isfinite(rate) && rate > 0 ? rate : 0;
}

class RatesCache {
 public:
  RatesCache() {
    Result<std::string> folder = CacheDirectory();
    if (!folder.ok()) return;
    path_ = *folder + "/rates.json";
    Result<std::string> text = ReadWholeFile(path_, kMaxCacheBytes);
    if (!text.ok()) return;
    Result<Json> json = ParseStrictJson(*text);
    if (json.ok() && json->is_object()) json_ = std::move(*json);
  }

  double Get(const std::string& key) const { return RateIn(json_, key); }

  void Set(const std::string& key, double value) {
    json_[key] = value;
    changed_ = true;
  }

  // Another process may write at the same time: each leaves a whole file.
  void Save() const {
    if (!changed_ || path_.empty()) return;
    const std::string partial = fmt::format("{}.{}", path_, getpid());
    std::ofstream file(partial);
    file << json_.dump(1, ' ', false, Json::error_handler_t::replace) << "\n";
    file.close();
    if (!file || std::rename(partial.c_str(), path_.c_str()) != 0) unlink(partial.c_str());
  }

 private:
  std::string path_;
  Json json_ = Json::object();
  bool changed_ = false;
};

std::string DeviceOf(const std::string& file) {
  struct stat info;
  return stat(file.c_str(), &info) == 0 ? fmt::format("{:x}", info.st_dev) : "";
}

// Folders and files of less than one read are not.
bool CanBeMeasured(const std::string& file) {
  struct stat info;
  return stat(file.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         info.st_size >= int64_t{DriveTrial().chunk_bytes};
}

// A type with a small share of the weights is not worth the time.
bool Matters(const OutlineType& type, const ModelOutline& outline) {
  return type.size_bytes * 50 >= outline.weight_bytes();
}

// What the cache knows of this machine, or a measurement finds and the cache keeps.
class RatesOfMachine {
 public:
  RatesOfMachine(const RatesRequest& request, const MachineFacts& facts) : request_(request) {
    report_.isa = request.isa.empty() ? facts.tables.back() : request.isa;
    report_.threads = request.threads > 0 ? request.threads : facts.usable_cores;
    prefix_ = fmt::format("{}, {} ({}), {} threads, ", facts.cpu, report_.isa, kKernelsRevision,
                          report_.threads);
  }

  Status AddMatmul(const OutlineType& type) {
    MatmulRate rate;
    rate.type = type.name;
    if (request_.bf16_prompts) {
      if (Status s = ReadBf16(type, &rate); !s.ok()) return s.WithContext("prefill in bf16");
    }
    const std::string one_token = prefix_ + type.name + ", 1 token";
    const std::string batch = prefix_ + type.name + ", batch";
    rate.one_token_bytes_per_s = Known(one_token);
    rate.batch_bytes_per_s = Known(batch);
    if (rate.one_token_bytes_per_s == 0 || rate.batch_bytes_per_s == 0) {
      if (request_.only_known) return Unknown();
      Tell();
      const Result<MatmulRate> measured =
          MeasureInQuiet([&] { return MeasureMatmulOn(type.type, report_.isa, report_.threads); },
                         [](const MatmulRate& trial) { return trial.one_token_bytes_per_s; },
                         request_.is_busy, &repeats_left_);
      if (!measured.ok()) return measured.status();
      rate.one_token_bytes_per_s = Keep(one_token, measured->one_token_bytes_per_s, measured->load);
      rate.batch_bytes_per_s = Keep(batch, measured->batch_bytes_per_s, measured->load);
    }
    report_.rates.matmul.push_back(std::move(rate));
    return Status();
  }

  void AddMemory() {
    report_.rates.memory_bytes_per_s = Once("memory", MeasureMemory);
    report_.rates.verification_bytes_per_s = Once("verification", MeasureVerification);
  }

  void AddDrive() {
    const std::string device = request_.file.empty() ? "" : DeviceOf(request_.file);
    const std::string key = "drive " + device;
    const std::string busy_key = key + fmt::format(", {} threads busy", report_.threads);
    double* const alone = &report_.rates.drive_bytes_per_s;
    double* const busy = &report_.rates.busy_drive_bytes_per_s;
    *alone = device.empty() ? 0 : Known(key);
    *busy = device.empty() ? 0 : Known(busy_key);
    report_.drive_origin = "measured before";
    const bool measured = *alone > 0 && *busy > 0;
    if (!measured && !request_.only_known && CanBeMeasured(request_.file)) {
      Tell();
      int repeats_left = kDriveRepeats;
      const Result<StreamingRates> drive =
          MeasureInQuiet([&] { return MeasureStreaming(request_.file, report_.threads); },
                         [](const StreamingRates& trial) { return trial.alone_bytes_per_s; },
                         request_.is_busy, &repeats_left);
      if (drive.ok()) {
        *alone = Keep(key, drive->alone_bytes_per_s, drive->load);
        *busy = Keep(busy_key, drive->busy_bytes_per_s, drive->load);
        report_.drive_origin = "measured now";
      }
    }
    if (*alone > 0) return;
    *alone = kAssumedDriveBytesPerS;
    report_.drive_origin = "assumed";
  }

  RatesReport Finish() {
    cache_.Save();
    return std::move(report_);
  }

 private:
  double Known(const std::string& key) const { return request_.measure_anew ? 0 : cache_.Get(key); }
  double Keep(const std::string& key, double rate, const Load& load) {
    if (request_.is_busy(load)) {
      report_.busy = true;
    } else {
      cache_.Set(key, rate);
    }
    return rate;
  }
  static Status Unknown() {
    return Status(ErrorCode::kNotFound, "this machine was not measured yet");
  }
  void Tell() {
    if (!std::exchange(told_, true) && !request_.quiet)
      PrintLine("measuring this machine (kept in the cache if nothing disturbs)");
  }

  Status ReadBf16(const OutlineType& type, MatmulRate* rate) {
    const std::string key = prefix_ + type.name + ", batch in bf16";
    rate->bf16_batch_bytes_per_s = Known(key);
    if (rate->bf16_batch_bytes_per_s > 0) return Status();
    if (request_.only_known) return Unknown();
    Tell();
    const Result<RateTrial> measured =
        InQuiet([&] { return MeasureBf16BatchOn(type.type, report_.isa, report_.threads); });
    if (!measured.ok()) return measured.status();
    rate->bf16_batch_bytes_per_s = Keep(key, measured->bytes_per_s, measured->load);
    return Status();
  }

  double Once(const std::string& name, RateTrial (*measure)(int)) {
    const double known = Known(prefix_ + name);
    if (known > 0 || request_.only_known) return known;
    Tell();
    const Result<RateTrial> trial =
        InQuiet([&] { return Result<RateTrial>(measure(report_.threads)); });
    return Keep(prefix_ + name, trial->bytes_per_s, trial->load);
  }

  template <typename Measure>
  Result<RateTrial> InQuiet(const Measure& measure) {
    return MeasureInQuiet(
        measure, [](const RateTrial& trial) { return trial.bytes_per_s; }, request_.is_busy,
        &repeats_left_);
  }

  const RatesRequest& request_;
  RatesReport report_;
  std::string prefix_;
  RatesCache cache_;
  int repeats_left_ = kRepeats;
  bool told_ = false;
};

}  // namespace

Result<RatesReport> RatesFor(const ModelOutline& outline, const RatesRequest& request) {
  RatesOfMachine rates(request, ProbeProcessor());
  for (const OutlineType& type : outline.types) {
    if (!Matters(type, outline)) continue;
    if (Status s = rates.AddMatmul(type); !s.ok()) return s;
  }
  rates.AddMemory();
  rates.AddDrive();
  return rates.Finish();
}

Result<RatesReport> RatesInFile(const std::string& path, const ModelOutline& outline,
                                bool bf16_prompts) {
  const auto corrupt = [&path](const std::string& what) {
    return Status(ErrorCode::kCorrupt, fmt::format("{}: {}", path, what));
  };
  const Result<std::string> text = ReadWholeFile(path, kMaxCacheBytes);
  if (!text.ok()) return text.status();
  const Result<Json> json = ParseStrictJson(*text);
  if (!json.ok()) return json.status().WithContext(path);
  if (!json->is_object()) return corrupt("this is no object, as plan --json writes it");
  RatesReport report;
  report.drive_origin = "given";
  const auto isa = json->find("isa");
  const auto threads = json->find("threads");
  if (isa == json->end() || !isa->is_string()) return corrupt("'isa' is no text");
  if (threads == json->end() || !threads->is_number_integer())
    return corrupt("'threads' is no whole number");
  report.isa = OnOneLine(isa->get<std::string>());
  report.busy = json->value(kBusyKey, Json(false)) == true;
  report.threads = static_cast<int>(std::clamp<int64_t>(threads->get<int64_t>(), 1, INT_MAX));
  PlanRates& rates = report.rates;
  for (const auto& [key, rate] : {std::pair{"drive_bytes_per_s", &rates.drive_bytes_per_s},
                                  {"busy_drive_bytes_per_s", &rates.busy_drive_bytes_per_s},
                                  {"memory_bytes_per_s", &rates.memory_bytes_per_s},
                                  {"verification_bytes_per_s", &rates.verification_bytes_per_s}}) {
    *rate = RateIn(*json, key);
    // Where a drive was not measured under load, it counts as fast as alone.
    if (*rate == 0 && rate != &rates.busy_drive_bytes_per_s)
      return corrupt(fmt::format("'{}' is no rate", key));
  }
  const auto matmul = json->find("matmul");
  if (matmul == json->end() || !matmul->is_object()) return corrupt("'matmul' is no object");
  for (const OutlineType& type : outline.types) {
    if (!Matters(type, outline)) continue;
    const auto found = matmul->find(type.name);
    if (found == matmul->end()) {
      return Status(ErrorCode::kNotFound,
                    fmt::format("{}: no rate of weights of type {}", path, type.name));
    }
    MatmulRate rate;
    rate.type = type.name;
    if (found->is_object()) {
      rate.one_token_bytes_per_s = RateIn(*found, "one_token_bytes_per_s");
      rate.batch_bytes_per_s = RateIn(*found, "batch_bytes_per_s");
    }
    if (rate.one_token_bytes_per_s == 0 || rate.batch_bytes_per_s == 0)
      return corrupt(fmt::format("'matmul' of type {} is no rate", type.name));
    if (bf16_prompts && !found->contains(kBf16BatchKey)) {
      return Status(ErrorCode::kNotFound,
                    fmt::format("{}: no rate of weights of type {} in bf16 (plan --prefill bf16 "
                                "--json writes them)",
                                path, type.name));
    }
    rate.bf16_batch_bytes_per_s = RateIn(*found, kBf16BatchKey);
    if (bf16_prompts && rate.bf16_batch_bytes_per_s == 0)
      return corrupt(fmt::format("'matmul' of type {} in bf16 is no rate", type.name));
    rates.matmul.push_back(std::move(rate));
  }
  return report;
}

}  // namespace sluice
