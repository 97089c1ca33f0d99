// What the verbs that write a .sluice file share.
#ifndef SLUICE_TOOLS_CONVERT_OPTIONS_H_
#define SLUICE_TOOLS_CONVERT_OPTIONS_H_

#include <string>

#include "formats/status.h"
#include "loaders/convert.h"
#include "tools/option_kinds.h"

namespace sluice {

struct ConvertOutput {
  std::string path;
  std::string quantization = "auto";
  int threads = 0;
  bool force = false;
  bool quiet = false;

  // Error: kInvalidArgument for an unknown --quant, or an output that is there without --force.
  // With `resume` the conversion finds out whether what is there was finished by an earlier run.
  Result<ConvertOptions> Prepare(bool resume = false) const;
  // One line on stderr unless quiet.
  void PrintReport(const ConvertReport& report) const;
};

// -o, --quant, --threads, --force, --quiet
void AddConvertOutputOptions(CLI::App* verb, ConvertOutput* output);

}  // namespace sluice

#endif  // SLUICE_TOOLS_CONVERT_OPTIONS_H_
