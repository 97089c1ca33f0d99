// sluice convert: a checkpoint becomes a .sluice file.
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>

#include <memory>

#include "loaders/convert.h"
#include "tools/cli.h"
#include "tools/convert_options.h"
#include "tools/model_cache.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

struct Options {
  std::string source;
  ConvertOutput output;
  uint64_t max_ram_bytes = uint64_t{1} << 30;
  bool resume = false;
};

Status Convert(const Options& options) {
  Result<ConvertOptions> convert = options.output.Prepare(options.resume);
  if (!convert.ok()) return convert.status();
  convert->max_ram_bytes = options.max_ram_bytes;
  // A file that grows past its limit (ulimit -f) is an error, as a full disk is, and no signal.
  signal(SIGXFSZ, SIG_IGN);
  Result<ConvertReport> report =
      ConvertWithProgress(options.source, options.output.path, *convert, options.output.quiet);
  if (!report.ok()) return report.status();
  options.output.PrintReport(*report);
  return Status();
}

}  // namespace

void AddConvertVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = cli->AddVerb(
      "convert", "Converts a checkpoint into a .sluice file",
      "  sluice convert model.gguf -o model.sluice\n"
      "  sluice convert ./Llama-3.2-1B-Instruct -o llama.sluice --quant int4:g64 --max-ram 512M\n"
      "  sluice convert ./Llama-3.2-1B-Instruct -o llama.sluice --quant int4:g64 --resume\n",
      [options] { return Convert(*options); });
  AddTextOption(verb, "SOURCE", &options->source, "A Hugging Face directory or a GGUF file")
      .Required();
  AddConvertOutputOptions(verb, &options->output);
  AddSizeOption(verb, "--max-ram", &options->max_ram_bytes,
                "Bound on the memory that it takes (default: 1G)");
  AddFlag(verb, "--resume", &options->resume,
          "Go on where an earlier conversion with the same source and options ended");
}

}  // namespace sluice
