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
constexpr int kKernelsRevision = 3;
constexpr double kAssumedDriveBytesPerS = 2e9;  // an NVMe drive of the cheaper kind

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

}  // namespace

Result<RatesReport> RatesFor(const ModelOutline& outline, const RatesRequest& request) {
  const MachineFacts facts = ProbeMachine();
  RatesReport report;
  report.isa = request.isa.empty() ? facts.tables.back() : request.isa;
  report.threads = request.threads > 0 ? request.threads : facts.usable_cores;
  RatesCache cache;
  const std::string prefix = fmt::format("{}, {} ({}), {} threads", facts.cpu, report.isa,
                                         kKernelsRevision, report.threads);
  const auto known = [&](const std::string& key) {
    return request.measure_anew ? 0 : cache.Get(key);
  };
  bool told = false;
  const auto tell = [&] {
    if (!std::exchange(told, true) && !request.quiet)
      PrintLine("measuring this machine (kept in the cache)");
  };

  const Status unknown(ErrorCode::kNotFound, "this machine was not measured yet");
  for (const OutlineType& type : outline.types) {
    if (!Matters(type, outline)) continue;
    MatmulRate rate;
    rate.type = type.name;
    rate.one_token_bytes_per_s = known(prefix + ", " + type.name + ", 1 token");
    rate.batch_bytes_per_s = known(prefix + ", " + type.name + ", batch");
    if (rate.one_token_bytes_per_s == 0 || rate.batch_bytes_per_s == 0) {
      if (request.only_known) return unknown;
      tell();
      Result<MatmulRate> measured = MeasureMatmulOn(type.type, report.isa, report.threads);
      if (!measured.ok()) return measured.status();
      rate = *measured;
      cache.Set(prefix + ", " + type.name + ", 1 token", rate.one_token_bytes_per_s);
      cache.Set(prefix + ", " + type.name + ", batch", rate.batch_bytes_per_s);
    }
    report.rates.matmul.push_back(rate);
  }
  const auto measured_once = [&](const std::string& key, double (*measure)(int)) {
    double value = known(key);
    if (value == 0 && !request.only_known) {
      tell();
      value = measure(report.threads);
      cache.Set(key, value);
    }
    return value;
  };
  report.rates.memory_bytes_per_s = measured_once(prefix + ", memory", MeasureMemory);
  report.rates.verification_bytes_per_s =
      measured_once(prefix + ", verification", MeasureVerification);

  const std::string device = request.file.empty() ? "" : DeviceOf(request.file);
  const std::string drive_key = "drive " + device;
  const std::string busy_key = drive_key + fmt::format(", {} threads busy", report.threads);
  report.rates.drive_bytes_per_s = device.empty() ? 0 : known(drive_key);
  report.rates.busy_drive_bytes_per_s = device.empty() ? 0 : known(busy_key);
  report.drive_origin = "measured before";
  const bool measured =
      report.rates.drive_bytes_per_s > 0 && report.rates.busy_drive_bytes_per_s > 0;
  if (!measured && !request.only_known && CanBeMeasured(request.file)) {
    tell();
    const Result<StreamingRates> drive = MeasureStreaming(request.file, report.threads);
    if (drive.ok()) {
      report.rates.drive_bytes_per_s = drive->alone_bytes_per_s;
      report.rates.busy_drive_bytes_per_s = drive->busy_bytes_per_s;
      report.drive_origin = "measured now";
      cache.Set(drive_key, drive->alone_bytes_per_s);
      cache.Set(busy_key, drive->busy_bytes_per_s);
    }
  }
  if (report.rates.drive_bytes_per_s == 0) {
    report.rates.drive_bytes_per_s = kAssumedDriveBytesPerS;
    report.drive_origin = "assumed";
  }
  cache.Save();
  return report;
}

Result<RatesReport> RatesInFile(const std::string& path, const ModelOutline& outline) {
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
    rates.matmul.push_back(std::move(rate));
  }
  return report;
}

}  // namespace sluice
