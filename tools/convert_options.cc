#include "tools/convert_options.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "tools/options.h"
#include "tools/output.h"

namespace sluice {

void AddConvertOutputOptions(CLI::App* verb, ConvertOutput* output) {
  AddTextOption(verb, "-o,--output", &output->path, "The .sluice file to write")
      .Required()
      .Type("FILE");
  AddTextOption(verb, "--quant", &output->quantization,
                "What becomes of matrices: auto keeps quantized sources and makes float ones "
                "mixed (int4, embedding and head int8)")
      .Type("auto|keep|f16|int8|int4[:g32|:g64|:g128][:sym]|mixed[:...]")
      .ShowDefault();
  AddThreadsOption(verb, &output->threads);
  AddFlag(verb, "--force", &output->force, "Replace the output if it is there");
  AddQuietOption(verb, &output->quiet);
}

Result<ConvertOptions> ConvertOutput::Prepare(bool resume) const {
  Result<QuantizationPlan> plan = ParseQuantization(quantization);
  if (!plan.ok()) return plan.status().WithContext("--quant");
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    if (!S_ISREG(info.st_mode)) {
      return Status(ErrorCode::kInvalidArgument, path + " is not a regular file");
    }
    if (!force && !resume) {
      return Status(ErrorCode::kInvalidArgument, path + " is there already; --force replaces it");
    }
  }
  ConvertOptions options;
  options.quantization = *plan;
  options.threads = threads;
  options.resume = resume;
  options.keep_existing = !force;
  return options;
}

void ConvertOutput::PrintReport(const ConvertReport& report) const {
  if (quiet) return;
  if (report.was_finished) {
    PrintLine(path + " was finished by an earlier run; its journal is removed");
    return;
  }
  PrintLine(fmt::format("{}: {} tensors, {} to {} in {:.1f} s ({}); written to {}",
                        OnOneLine(report.description), report.tensors,
                        FormatBytes(report.source_bytes), FormatBytes(report.file_bytes),
                        report.seconds, quantization, path));
}

}  // namespace sluice
