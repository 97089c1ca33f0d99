// sluice doctor: what this machine offers, what is wrong with it, and the cure.
#include <cstdlib>
#include <memory>
#include <utility>

#include "runtime/gpu.h"
#include "runtime/machine.h"
#include "tools/cli.h"
#include "tools/diagnosis.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

struct DoctorOptions {
  std::string file;
  bool json = false;
};

Status Examine(const DoctorOptions& options) {
  Diagnosis diagnosis;
  diagnosis.facts = ProbeMachine();
  const RateTrial memory = MeasureMemory(diagnosis.facts.usable_cores);
  diagnosis.memory_bytes_per_s = memory.bytes_per_s;
  diagnosis.memory_was_busy = IsBusy(memory.load);
  if (!options.file.empty()) {
    Result<DriveRate> drive = MeasureDrive(options.file, DriveTrial{});
    if (!drive.ok()) return drive.status();
    diagnosis.drive = std::move(*drive);
  }
  if (!diagnosis.facts.gpus.empty()) {
    const Result<std::string> f16_library = FindF16Library();
    diagnosis.f16_library = f16_library.ok() ? *f16_library : "";
    diagnosis.no_f16_library = f16_library.status().message();
  }
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr) diagnosis.visible_devices = visible;
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
  AddTextOption(verb, "FILE", &options->file,
                "A large file on the drive that weights stream from: its speed is measured");
  AddFlag(verb, "--json", &options->json, "As a JSON object");
}

}  // namespace sluice
