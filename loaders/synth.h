// Random weights in the exact shape of a known model, for benchmarks.
#ifndef SLUICE_LOADERS_SYNTH_H_
#define SLUICE_LOADERS_SYNTH_H_

#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/convert.h"

namespace sluice {

// Names that SynthesizeModel knows: "smollm2-135m", "llama-3-8b", ...
std::vector<std::string_view> SynthShapes();

// Writes a .sluice file with random but well-scaled weights (logits stay finite) and a byte-level
// tokenizer that works, at the speed of the disk. The same shape, type and seed give the same
// bytes, whatever the number of threads. Errors: kInvalidArgument for an unknown shape (lists
// them), those of SluiceWriter.
Result<ConvertReport> SynthesizeModel(std::string_view shape, const std::string& output_path,
                                      const ConvertOptions& options, uint64_t seed);

}  // namespace sluice

#endif  // SLUICE_LOADERS_SYNTH_H_
