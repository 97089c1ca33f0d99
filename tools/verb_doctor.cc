// sluice doctor: what this machine offers, what is wrong with it, and the cure.
#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "runtime/machine.h"
#include "tools/cli.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// Registered buffers of the default ring.
constexpr uint64_t kRingBytes = uint64_t{128} << 20;

struct DoctorOptions {
  std::string file;
  bool json = false;
};

struct Finding {
  std::string problem, cure;
};

struct Diagnosis {
  MachineFacts facts;
  double memory_bytes_per_s = 0;
  std::optional<DriveRate> drive;
  std::vector<Finding> findings;
};

void FindGpuProblems(Diagnosis* diagnosis) {
  const MachineFacts& facts = diagnosis->facts;
  if (!facts.gpus.empty() && facts.cuda_build == "none") {
    diagnosis->findings.push_back(
        {"this build of sluice has no CUDA: the GPU is not used",
         "build it where CMake finds nvcc of the CUDA Toolkit 12.8 or later (CONTRIBUTING.md)"});
  }
  for (const GpuFacts& gpu : facts.gpus) {
    if (IsSupportedGpu(gpu)) continue;
    diagnosis->findings.push_back(
        {fmt::format("{} has compute capability {}: 8.0 (Ampere) is the oldest that sluice runs on",
                     gpu.name, gpu.compute_capability),
         "the processor computes; a newer GPU"});
  }
}

void FindProblems(Diagnosis* diagnosis) {
  FindGpuProblems(diagnosis);
  const MachineFacts& facts = diagnosis->facts;
  const auto add = [diagnosis](std::string problem, std::string cure) {
    diagnosis->findings.push_back({std::move(problem), std::move(cure)});
  };
  if (facts.tables.size() == 1) {
    add("no fast instruction set runs here: only the reference does",
        "a processor with AVX2, F16C and FMA (and a virtual machine that passes them on)");
  }
  if (!facts.missing_table.empty()) {
    add(fmt::format("the processor advertises more than runs here: {}", facts.missing_table),
        "Linux 5.16 or later, a virtual machine that passes AMX on, and a sandbox that allows "
        "arch_prctl; until then AVX-512 computes");
  }
  if (!facts.io_uring.ok()) {
    add(facts.io_uring.message(),
        "weights are read by threads instead, which is slower on fast drives; allow io_uring for "
        "full speed");
  }
  if (facts.lockable_bytes < kRingBytes) {
    add(fmt::format("only {} may be locked in memory, so read buffers are not registered",
                    FormatBytes(facts.lockable_bytes)),
        "raise the limit: ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, or memlock "
        "in /etc/security/limits.conf");
  }
  if (facts.huge_pages == "never") {
    add("transparent huge pages are off: reads and large matrices are slower",
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)");
  }
  if (facts.available_bytes < facts.memory_bytes / 4) {
    add(fmt::format("{} of {} memory may be used now", FormatBytes(facts.available_bytes),
                    FormatBytes(facts.memory_bytes)),
        "end other programs, or raise the limit of the control group (memory.max)");
  }
  if (diagnosis->drive && diagnosis->drive->description.find("O_DIRECT") == std::string::npos) {
    add("the file system refuses direct reads: streamed weights pass through the page cache",
        "keep models on ext4, xfs or btrfs on a local drive");
  }
}

std::string DiagnosisJson(const Diagnosis& diagnosis) {
  const MachineFacts& facts = diagnosis.facts;
  Json gpus = Json::array();
  for (const GpuFacts& gpu : facts.gpus) {
    gpus.push_back({{"name", gpu.name},
                    {"memory_bytes", gpu.memory_bytes},
                    {"free_bytes", gpu.free_bytes},
                    {"compute_capability", gpu.compute_capability},
                    {"pcie_generation", gpu.pcie_generation},
                    {"pcie_width", gpu.pcie_width}});
  }
  Json findings = Json::array();
  for (const Finding& finding : diagnosis.findings) {
    findings.push_back({{"problem", finding.problem}, {"cure", finding.cure}});
  }
  Json json = {{"cpu", facts.cpu},
               {"logical_processors", facts.logical_processors},
               {"usable_cores", facts.usable_cores},
               {"tables", facts.tables},
               {"missing_table", facts.missing_table},
               {"memory_bytes", facts.memory_bytes},
               {"available_bytes", facts.available_bytes},
               {"memory_bytes_per_s", diagnosis.memory_bytes_per_s},
               {"lockable_bytes",
                facts.lockable_bytes == UINT64_MAX ? Json(nullptr) : Json(facts.lockable_bytes)},
               {"huge_pages", facts.huge_pages},
               {"io_uring", facts.io_uring.ok()},
               {"gpu_driver", facts.gpu_driver},
               {"cuda_build", facts.cuda_build},
               {"gpus", gpus},
               {"findings", findings}};
  if (diagnosis.drive) {
    json["drive"] = {{"bytes_per_s", diagnosis.drive->bytes_per_s},
                     {"how", diagnosis.drive->description}};
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string DiagnosisText(const Diagnosis& diagnosis) {
  const MachineFacts& facts = diagnosis.facts;
  std::string text = fmt::format("{:<14}{}; {} processors, {} cores to use; tables {}\n",
                                 "processor", OnOneLine(facts.cpu), facts.logical_processors,
                                 facts.usable_cores, fmt::join(facts.tables, ", "));
  text += fmt::format("{:<14}{}, {} may be used now; reads at {:.1f} GB/s; huge pages {}\n",
                      "memory", FormatBytes(facts.memory_bytes), FormatBytes(facts.available_bytes),
                      diagnosis.memory_bytes_per_s / 1e9,
                      facts.huge_pages.empty() ? "unknown" : facts.huge_pages);
  text += fmt::format(
      "{:<14}io_uring {}; {} may be locked\n", "reading",
      facts.io_uring.ok() ? "works" : "does not work",
      facts.lockable_bytes == UINT64_MAX ? "any amount" : FormatBytes(facts.lockable_bytes));
  if (diagnosis.drive) {
    text += fmt::format("{:<14}{:.2f} GB/s ({})\n", "drive", diagnosis.drive->bytes_per_s / 1e9,
                        diagnosis.drive->description);
  } else {
    text +=
        fmt::format("{:<14}not measured: name a large file on it (sluice doctor FILE)\n", "drive");
  }
  for (const GpuFacts& gpu : facts.gpus) {
    text +=
        fmt::format("{:<14}{}, {} ({} free), compute {}, PCIe {} x{}; driver {}\n", "GPU", gpu.name,
                    FormatBytes(gpu.memory_bytes), FormatBytes(gpu.free_bytes),
                    gpu.compute_capability, gpu.pcie_generation, gpu.pcie_width, facts.gpu_driver);
  }
  if (facts.gpus.empty()) text += fmt::format("{:<14}none ({})\n", "GPU", facts.gpu_driver);
  text += fmt::format("{:<14}{}\n", "build",
                      facts.cuda_build == "none" ? "without CUDA" : "with " + facts.cuda_build);
  for (const Finding& finding : diagnosis.findings) {
    text += fmt::format("{:<14}{}\n{:<14}{}\n", "problem", finding.problem, "  cure", finding.cure);
  }
  if (diagnosis.findings.empty()) text += "nothing is wrong\n";
  return text;
}

Status Examine(const DoctorOptions& options) {
  Diagnosis diagnosis;
  diagnosis.facts = ProbeMachine();
  diagnosis.memory_bytes_per_s = MeasureMemory(diagnosis.facts.usable_cores);
  if (!options.file.empty()) {
    Result<DriveRate> drive = MeasureDrive(options.file, DriveTrial{});
    if (!drive.ok()) return drive.status();
    diagnosis.drive = std::move(*drive);
  }
  FindProblems(&diagnosis);
  return WriteStdout(options.json ? DiagnosisJson(diagnosis) : DiagnosisText(diagnosis));
}

}  // namespace

void AddDoctorVerb(Cli* cli) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb =
      cli->AddVerb("doctor", "Says what this machine offers, what is wrong with it, and the cure",
                   "  sluice doctor\n"
                   "  sluice doctor model.sluice\n"
                   "  sluice doctor --json | jq .findings\n",
                   [options] { return Examine(*options); });
  verb->add_option("FILE", options->file,
                   "A large file on the drive that weights stream from: its speed is measured");
  verb->add_flag("--json", options->json, "As a JSON object");
}

}  // namespace sluice
