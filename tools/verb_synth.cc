// sluice synth: random weights in the shape of a known model.
#include <fmt/format.h>

#include <memory>

#include "loaders/synth.h"
#include "tools/cli.h"
#include "tools/convert_options.h"
#include "tools/interrupt.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/progress.h"

namespace sluice {
namespace {

struct Options {
  std::string shape;
  ConvertOutput output;
  uint64_t seed = 0;
};

std::string ShapeNames() {
  std::string names;
  for (std::string_view name : SynthShapes()) {
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

Status Synth(const Options& options) {
  Result<ConvertOptions> convert = options.output.Prepare();
  if (!convert.ok()) return convert.status();
  Progress bar("writing", Progress::Unit::kBytes, options.output.quiet);
  convert->progress = [&bar](const ConvertProgress& progress) {
    bar.Update(progress.done_bytes, progress.total_bytes, progress.tensor);
    return !Interrupted();
  };
  Result<ConvertReport> report =
      SynthesizeModel(options.shape, options.output.path, *convert, options.seed);
  if (!report.ok()) return report.status();
  bar.Clear();
  options.output.PrintReport(*report);
  return Status();
}

}  // namespace

void AddSynthVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      cli->AddVerb("synth", "Writes random weights in the shape of a known model, for benchmarks",
                   "  sluice synth --shape smollm2-135m -o random.sluice\n"
                   "  sluice synth --shape llama-3-8b -o random.sluice --quant int8 --seed 7\n",
                   [options] { return Synth(*options); });
  AddTextOption(verb, "--shape", &options->shape, "One of: " + ShapeNames())
      .Required()
      .Type("NAME");
  AddConvertOutputOptions(verb, &options->output);
  AddSeedOption(verb, &options->seed, "The same seed gives the same file").ShowDefault();
}

}  // namespace sluice
