// Options that several verbs share, each declared once.
#ifndef SLUICE_TOOLS_OPTIONS_H_
#define SLUICE_TOOLS_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/status.h"
#include "sluice/engine.h"
#include "tools/option_kinds.h"

namespace sluice {

// What every verb that runs a model takes: MODEL and how to run it.
struct ModelOptions {
  std::string model;
  uint64_t ram_bytes = 0;
  std::optional<uint64_t> vram_bytes;
  int64_t context_tokens = 0;
  int threads = 0;
  int64_t max_sequences = 1;
  std::string kv = "f16";
  std::string isa;
  std::string prefill = "int8";
  std::string io = "auto";
  std::string place;
  std::string trace;
  bool quiet = false;

  EngineOptions ToEngineOptions() const;  // without the path
};
// `context` is the description of --ctx.
void AddModelOptions(CLI::App* verb, ModelOptions* options, const std::string& context);

// How the next token is chosen, and where an answer ends.
struct GenerationOptions {
  SamplingOptions sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::vector<std::string> stop;
  int64_t max_new_tokens = -1;
  bool ignore_eos = false;

  // Parses logit_bias and draws a seed where none was given.
  // Error: kInvalidArgument for an empty stop string.
  Status Resolve();
};
void AddGenerationOptions(CLI::App* verb, GenerationOptions* options);

}  // namespace sluice

#endif  // SLUICE_TOOLS_OPTIONS_H_
