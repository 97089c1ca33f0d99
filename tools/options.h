// Options that several verbs share, each declared once.
#ifndef SLUICE_TOOLS_OPTIONS_H_
#define SLUICE_TOOLS_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/status.h"
#include "sluice/engine.h"

namespace sluice {

// "512", "64K", "1.5G": bytes, with K, M, G, T as powers of 1,024 (KiB and KB too). nullopt if it
// is anything else, negative, or larger than 2^63.
std::optional<uint64_t> ParseSize(const std::string& text);

// From 0 to 2^64 - 1, in decimal digits alone.
CLI::Validator WholeNumber();

// An option whose value is one of `choices`.
CLI::Option* AddChoiceOption(CLI::App* verb, const std::string& names, std::string* value,
                             std::vector<std::string> choices, const std::string& description);

// An option whose value is a number from 1 on.
CLI::Option* AddCountOption(CLI::App* verb, const std::string& names, int64_t* count,
                            const std::string& description);

// An option whose value is a size of at least one byte.
CLI::Option* AddSizeOption(CLI::App* verb, const std::string& names, uint64_t* bytes,
                           const std::string& description);

// The same, where 0 has a meaning too; none while it is not given.
CLI::Option* AddSizeOrNoneOption(CLI::App* verb, const std::string& names,
                                 std::optional<uint64_t>* bytes, const std::string& description);

// An option that may be given several times, one value each; values are taken as they are.
CLI::Option* AddRepeatableOption(CLI::App* verb, const std::string& names,
                                 std::vector<std::string>* values, const std::string& description);

// --seed, --threads, --quiet
template <typename T>  // uint64_t, or std::optional of it
CLI::Option* AddSeedOption(CLI::App* verb, T* seed, const std::string& description) {
  return verb->add_option("--seed", *seed, description)->check(WholeNumber())->type_name("N");
}
CLI::Option* AddThreadsOption(CLI::App* verb, int* threads);
void AddQuietOption(CLI::App* verb, bool* quiet);

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
