#include "tools/options.h"

#include <limits>
#include <random>

namespace sluice {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

}  // namespace

EngineOptions ModelOptions::ToEngineOptions() const {
  EngineOptions options;
  options.context_tokens = context_tokens;
  options.threads = threads;
  options.max_sequences = max_sequences;
  options.kv_cache_type = kv == "f32" ? KvCacheType::kF32 : KvCacheType::kF16;
  options.isa = isa;
  options.prefill = prefill == "bf16"  ? PrefillType::kBf16
                    : prefill == "f16" ? PrefillType::kF16
                                       : PrefillType::kInt8;
  options.io = io == "uring"   ? WeightIo::kUring
               : io == "pread" ? WeightIo::kPread
               : io == "mmap"  ? WeightIo::kMapped
                               : WeightIo::kAuto;
  options.place = place;
  options.trace = !trace.empty();
  options.ram_bytes = ram_bytes;
  options.vram_bytes = vram_bytes;
  return options;
}

void AddModelOptions(CLI::App* verb, ModelOptions* options, const std::string& context) {
  const std::string group = "Running the model";
  AddTextOption(verb, "MODEL", &options->model,
                "A .sluice file, or what convert reads (converted into the cache first)")
      .Required();
  AddSizeOption(verb, "--ram", &options->ram_bytes,
                "Bound on the memory that the engine holds (default: what is free); weights that "
                "do not fit stream from disk")
      .Group(group);
  AddSizeOrNoneOption(verb, "--vram", &options->vram_bytes,
                      "Bound on GPU memory; 0: no GPU (default: what is free, where a GPU holds "
                      "the whole model)")
      .Group(group);
  AddNumberOption(verb, "--ctx", &options->context_tokens, 1, kMaxTokens, "a number of tokens",
                  context)
      .Type("TOKENS")
      .Group(group);
  AddThreadsOption(verb, &options->threads).Group(group);
  AddChoiceOption(verb, "--kv", &options->kv, {"f32", "f16"}, "Type of the KV cache").Group(group);
  AddChoiceOption(verb, "--isa", &options->isa, {"ref", "avx2", "avx512", "amx", "cuda"},
                  "Instruction set, or cuda: a GPU (default: the fastest that runs)")
      .Group(group);
  AddPrefillOption(verb, &options->prefill).Group(group);
  AddChoiceOption(
      verb, "--io", &options->io, {"auto", "uring", "pread", "mmap"},
      "How weights are read (auto: io_uring where it is allowed; mmap: not into memory)")
      .Group(group);
  AddTextOption(verb, "--place", &options->place,
                "Where weights live, over the planner: layers.0-19.ffn=disk,head=ram")
      .Type("RULES")
      .Group(group);
  AddTextOption(
      verb, "--trace", &options->trace,
      "Writes reads, waits and computation to this file, for chrome://tracing or Perfetto")
      .Type("FILE.json")
      .Group(group);
  AddQuietOption(verb, &options->quiet);
}

void AddGenerationOptions(CLI::App* verb, GenerationOptions* options) {
  SamplingOptions& s = options->sampling;
  const std::string group = "Sampling";
  const auto number = [&](const std::string& names, float* value, float low, float high,
                          const std::string& range, const std::string& text) {
    AddNumberOption(verb, names, value, low, high, range, text).ShowDefault().Group(group);
  };
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kLeast = std::numeric_limits<float>::denorm_min();
  constexpr int32_t kMaxInt = std::numeric_limits<int32_t>::max();
  AddNumberOption(verb, "-n,--max-tokens", &options->max_new_tokens, -1, kMaxTokens,
                  "a number of tokens, or -1",
                  "Length of an answer; -1: until its end or that of the context")
      .Type("TOKENS")
      .ShowDefault();
  AddRepeatableOption(verb, "--stop", &options->stop,
                      "Ends the answer before this text; repeatable");
  AddFlag(verb, "--ignore-eos", &options->ignore_eos, "Go on after the end token");
  AddSeedOption(verb, &options->seed, "Of the draws (default: a random one, printed)").Group(group);
  number("--temp", &s.temperature, 0, kMax, "0 or more", "Temperature; 0: the most probable token");
  AddNumberOption(verb, "--top-k", &s.top_k, 0, kMaxInt, "0 or more",
                  "Only the K most probable; 0: off")
      .Type("K")
      .ShowDefault()
      .Group(group);
  number("--top-p", &s.top_p, kLeast, 1, "above 0 and at most 1",
         "Only the most probable of this sum; 1: off");
  number("--min-p", &s.min_p, 0, 1, "from 0 to 1",
         "Only those of this share of the largest; 0: off");
  number("--repeat-penalty", &s.repeat_penalty, kLeast, kMax, "above 0",
         "For tokens that were there; 1: off");
  AddNumberOption(verb, "--repeat-last-n", &s.repeat_last_n, -1, kMaxInt, "-1 or more",
                  "Tokens that penalties look back on; 0: none, -1: all")
      .Type("N")
      .ShowDefault()
      .Group(group);
  number("--presence-penalty", &s.presence_penalty, -2, 2, "from -2 to 2",
         "Once for tokens that were there");
  number("--frequency-penalty", &s.frequency_penalty, -2, 2, "from -2 to 2",
         "For each time that a token was there");
  AddBiasOption(verb, "--logit-bias", &options->logit_bias, "Added to a token's logit; repeatable")
      .Group(group);
}

Status GenerationOptions::Resolve() {
  for (const std::string& text : logit_bias) {
    if (const auto bias = ParseBias(text)) sampling.logit_bias.push_back(*bias);
  }
  for (const std::string& text : stop) {
    if (text.empty()) return Status(ErrorCode::kInvalidArgument, "--stop: the text is empty");
  }
  if (!seed) seed = (uint64_t{std::random_device()()} << 32) | std::random_device()();
  sampling.seed = *seed;
  return Status();
}

}  // namespace sluice
