#include "tools/diagnosis.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "tools/gpu_facts.h"
#include "tools/output.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// Registered buffers of the default ring.
constexpr uint64_t kRingBytes = uint64_t{128} << 20;

// Another GPU that would serve, if the one that is used does not.
std::string OtherGpu(const MachineFacts& facts) {
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const GpuFacts& gpu = facts.gpus[i];
    if (i == facts.used_gpu || !IsSupportedGpu(gpu)) continue;
    return fmt::format("; or {}, with CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={}",
                       OnOneLine(gpu.name), gpu.index);
  }
  return "";
}

void FindUsedGpuProblems(Diagnosis* diagnosis) {
  const MachineFacts& facts = diagnosis->facts;
  const GpuFacts& gpu = facts.gpus[facts.used_gpu];
  if (!IsSupportedGpu(gpu)) {
    diagnosis->findings.push_back(
        {fmt::format("{} has compute capability {}: 8.0 (Ampere) is the oldest that sluice runs on",
                     OnOneLine(gpu.name), OnOneLine(gpu.compute_capability)),
         "the processor computes; a newer GPU" + OtherGpu(facts)});
  } else if (gpu.free_bytes < gpu.memory_bytes / 2) {
    diagnosis->findings.push_back(
        {fmt::format("{} of {} GPU memory are free", FormatBytes(gpu.free_bytes),
                     FormatBytes(gpu.memory_bytes)),
         "end other programs that use the GPU (nvidia-smi names them)" + OtherGpu(facts)});
  }
}

void FindGpuProblems(Diagnosis* diagnosis) {
  const MachineFacts& facts = diagnosis->facts;
  if (!facts.gpus.empty() && facts.cuda_build == "none") {
    diagnosis->findings.push_back(
        {"this build of sluice has no CUDA: the GPU is not used",
         "build it where CMake finds nvcc of the CUDA Toolkit 12.8 or later (CONTRIBUTING.md)"});
  } else if (!facts.gpus.empty() && !facts.why_no_gpu.empty() && IsSupportedDriver(facts)) {
    diagnosis->findings.push_back(
        {fmt::format("the GPU is not used: {}", OnOneLine(facts.why_no_gpu)),
         diagnosis->visible_devices
             ? fmt::format("CUDA_VISIBLE_DEVICES is '{}': unset it, or set it to numbers that GPUs "
                           "have",
                           OnOneLine(*diagnosis->visible_devices))
             : "nvidia-smi tells whether the driver works; a container needs its compute part too "
               "(NVIDIA_DRIVER_CAPABILITIES=compute,utility)"});
  }
  if (HasUsedGpu(facts)) FindUsedGpuProblems(diagnosis);
  if (!facts.gpus.empty() && !IsSupportedDriver(facts)) {
    diagnosis->findings.push_back(
        {fmt::format(
             "driver {} is for CUDA {}, this build of sluice is with {}: the GPU is not used",
             OnOneLine(facts.gpu_driver), facts.gpu_cuda, facts.cuda_build),
         "a newer driver (580 or later for CUDA 13), or a build with an older toolkit, from 12.8 "
         "on"});
  }
}

}  // namespace

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
               {"measured_while_busy", diagnosis.memory_was_busy},
               {"lockable_bytes",
                facts.lockable_bytes == UINT64_MAX ? Json(nullptr) : Json(facts.lockable_bytes)},
               {"huge_pages", facts.huge_pages},
               {"io_uring", facts.io_uring.ok()},
               {"gpu_driver", facts.gpu_driver},
               {"gpu_cuda", facts.gpu_cuda},
               {"cuda_build", facts.cuda_build},
               {"gpus", GpusJson(facts)},
               {"f16_library", diagnosis.f16_library},
               {"no_f16_library", diagnosis.no_f16_library},
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
  text += fmt::format("{:<14}{}, {} may be used now; reads at {:.1f} GB/s{}; huge pages {}\n",
                      "memory", FormatBytes(facts.memory_bytes), FormatBytes(facts.available_bytes),
                      diagnosis.memory_bytes_per_s / 1e9,
                      diagnosis.memory_was_busy ? " while other programs use the processors" : "",
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
  text += GpusText(facts, "; driver " + OnOneLine(facts.gpu_driver));
  if (facts.gpus.empty()) text += fmt::format("{:<14}none ({})\n", "GPU", facts.gpu_driver);
  if (!facts.gpus.empty()) {
    text += fmt::format("{:<14}{}\n", "--prefill f16",
                        diagnosis.f16_library.empty()
                            ? fmt::format("not here ({})", OnOneLine(diagnosis.no_f16_library))
                            : OnOneLine(diagnosis.f16_library));
  }
  text += fmt::format("{:<14}{}\n", "build",
                      facts.cuda_build == "none" ? "without CUDA" : "with " + facts.cuda_build);
  for (const Finding& finding : diagnosis.findings) {
    text += fmt::format("{:<14}{}\n{:<14}{}\n", "problem", finding.problem, "  cure", finding.cure);
  }
  if (diagnosis.findings.empty()) text += "nothing is wrong\n";
  return text;
}

}  // namespace sluice
