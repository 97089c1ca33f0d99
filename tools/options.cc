#include "tools/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <random>

namespace sluice {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

// The whole of `text` as a finite number.
template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(static_cast<double>(value))) return std::nullopt;
  return value;
}

std::optional<std::pair<int32_t, float>> ParseBias(const std::string& text) {
  const size_t sign = text.find('=');
  if (sign == std::string::npos) return std::nullopt;
  const auto id = ParseNumber<int32_t>(std::string_view(text).substr(0, sign));
  std::string_view bias_text = std::string_view(text).substr(sign + 1);
  if (!bias_text.empty() && bias_text[0] == '+') bias_text.remove_prefix(1);
  const auto bias = ParseNumber<float>(bias_text);
  if (!id || *id < 0 || !bias) return std::nullopt;
  return std::pair(*id, *bias);
}

// CLI::Range prints doubles in its message and takes "nan" for a number inside it.
template <typename T>
CLI::Validator Between(T low, T high, const std::string& range) {
  return CLI::Validator(
      [low, high, range](const std::string& text) {
        const auto value = ParseNumber<T>(text);
        if (value && *value >= low && *value <= high) return std::string();
        return fmt::format("'{}' is not {}", text, range);
      },
      "");
}

}  // namespace

std::optional<uint64_t> ParseSize(const std::string& text) {
  size_t end = 0;
  while (end < text.size() &&
         (std::isdigit(static_cast<unsigned char>(text[end])) != 0 || text[end] == '.')) {
    ++end;
  }
  const auto value = ParseNumber<double>(std::string_view(text).substr(0, end));
  std::string unit = CLI::detail::to_lower(text.substr(end));
  if (unit.size() > 1 && unit.back() == 'b') unit.pop_back();
  if (unit.size() > 1 && unit.back() == 'i') unit.pop_back();
  const size_t power = unit.empty() ? 0 : std::string_view("kmgt").find(unit) + 1;
  if (!value || unit.size() > 1 || (!unit.empty() && power == 0)) return std::nullopt;
  const double bytes = std::ldexp(*value, static_cast<int>(10 * power));
  if (!(bytes < 0x1p63)) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

CLI::Validator WholeNumber() {
  return Between<uint64_t>(0, std::numeric_limits<uint64_t>::max(), "a whole number");
}

CLI::Option* AddChoiceOption(CLI::App* verb, const std::string& names, std::string* value,
                             std::vector<std::string> choices, const std::string& description) {
  const std::string type = fmt::format("{}", fmt::join(choices, "|"));
  return verb->add_option(names, *value, description)
      ->check(CLI::Validator(
          [choices = std::move(choices)](const std::string& text) {
            if (std::find(choices.begin(), choices.end(), text) != choices.end()) {
              return std::string();
            }
            return fmt::format("'{}' is not one of {}", text, fmt::join(choices, ", "));
          },
          ""))
      ->type_name(type)
      ->capture_default_str();
}

CLI::Option* AddCountOption(CLI::App* verb, const std::string& names, int64_t* count,
                            const std::string& description) {
  return verb->add_option(names, *count, description)
      ->check(Between<int64_t>(1, kMaxTokens, "a number from 1 on"))
      ->type_name("N");
}

CLI::Option* AddSizeOption(CLI::App* verb, const std::string& names, uint64_t* bytes,
                           const std::string& description) {
  const auto check = [](const std::string& text) {
    const auto size = ParseSize(text);
    if (size && *size > 0) return std::string();
    return fmt::format("'{}' is not a size such as 512M or 1.5G", text);
  };
  return verb
      ->add_option_function<std::string>(
          names, [bytes](const std::string& text) { *bytes = ParseSize(text).value_or(0); },
          description)
      ->check(check)
      ->type_name("SIZE");
}

CLI::Option* AddSizeOrNoneOption(CLI::App* verb, const std::string& names,
                                 std::optional<uint64_t>* bytes, const std::string& description) {
  const auto check = [](const std::string& text) {
    return ParseSize(text) ? std::string()
                           : fmt::format("'{}' is not a size such as 512M, 1.5G or 0", text);
  };
  return verb
      ->add_option_function<std::string>(
          names, [bytes](const std::string& text) { *bytes = ParseSize(text); }, description)
      ->check(check)
      ->type_name("SIZE");
}

CLI::Option* AddRepeatableOption(CLI::App* verb, const std::string& names,
                                 std::vector<std::string>* values, const std::string& description) {
  return verb->add_option(names, *values, description)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

CLI::Option* AddThreadsOption(CLI::App* verb, int* threads) {
  return verb->add_option("--threads", *threads, "Default: one for each core")
      ->check(Between<int>(1, kMaxThreads, "a number of threads from 1 to 1024"))
      ->type_name("N");
}

void AddQuietOption(CLI::App* verb, bool* quiet) {
  verb->add_flag("--quiet", *quiet, "Nothing on stderr but errors");
}

EngineOptions ModelOptions::ToEngineOptions() const {
  EngineOptions options;
  options.context_tokens = context_tokens;
  options.threads = threads;
  options.max_sequences = max_sequences;
  options.kv_cache_type = kv == "f32" ? KvCacheType::kF32 : KvCacheType::kF16;
  options.isa = isa;
  options.prefill = prefill == "bf16" ? PrefillType::kBf16 : PrefillType::kInt8;
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
  verb->add_option("MODEL", options->model,
                   "A .sluice file, or what convert reads (converted into the cache first)")
      ->required();
  AddSizeOption(verb, "--ram", &options->ram_bytes,
                "Bound on the memory that the engine holds (default: what is free); weights that "
                "do not fit stream from disk")
      ->group(group);
  AddSizeOrNoneOption(verb, "--vram", &options->vram_bytes,
                      "Bound on GPU memory; 0: no GPU (default: what is free, where a GPU holds "
                      "the whole model)")
      ->group(group);
  verb->add_option("--ctx", options->context_tokens, context)
      ->check(Between<int64_t>(1, kMaxTokens, "a number of tokens"))
      ->type_name("TOKENS")
      ->group(group);
  AddThreadsOption(verb, &options->threads)->group(group);
  AddChoiceOption(verb, "--kv", &options->kv, {"f32", "f16"}, "Type of the KV cache")->group(group);
  AddChoiceOption(verb, "--isa", &options->isa, {"ref", "avx2", "avx512", "amx", "cuda"},
                  "Instruction set, or cuda: a GPU (default: the fastest that runs)")
      ->group(group);
  AddChoiceOption(verb, "--prefill", &options->prefill, {"int8", "bf16"},
                  "Products of prompts: bf16 rounds weights and activations to it, which is faster "
                  "with AMX and gives other results; answers are computed in int8 all the same")
      ->group(group);
  AddChoiceOption(
      verb, "--io", &options->io, {"auto", "uring", "pread", "mmap"},
      "How weights are read (auto: io_uring where it is allowed; mmap: not into memory)")
      ->group(group);
  verb->add_option("--place", options->place,
                   "Where weights live, over the planner: layers.0-19.ffn=disk,head=ram")
      ->type_name("RULES")
      ->group(group);
  verb->add_option(
          "--trace", options->trace,
          "Writes reads, waits and computation to this file, for chrome://tracing or Perfetto")
      ->type_name("FILE.json")
      ->group(group);
  AddQuietOption(verb, &options->quiet);
}

void AddGenerationOptions(CLI::App* verb, GenerationOptions* options) {
  SamplingOptions& s = options->sampling;
  const auto number = [verb](const std::string& names, float* value, const std::string& text,
                             CLI::Validator range) {
    verb->add_option(names, *value, text)
        ->check(std::move(range))
        ->type_name("NUMBER")
        ->capture_default_str()
        ->group("Sampling");
  };
  constexpr float kMax = std::numeric_limits<float>::max();
  verb->add_option("-n,--max-tokens", options->max_new_tokens,
                   "Length of an answer; -1: until its end or that of the context")
      ->check(Between<int64_t>(-1, kMaxTokens, "a number of tokens, or -1"))
      ->type_name("TOKENS")
      ->capture_default_str();
  AddRepeatableOption(verb, "--stop", &options->stop,
                      "Ends the answer before this text; repeatable");
  verb->add_flag("--ignore-eos", options->ignore_eos, "Go on after the end token");
  AddSeedOption(verb, &options->seed, "Of the draws (default: a random one, printed)")
      ->group("Sampling");
  number("--temp", &s.temperature, "Temperature; 0: the most probable token",
         Between<float>(0, kMax, "0 or more"));
  verb->add_option("--top-k", s.top_k, "Only the K most probable; 0: off")
      ->check(Between<int32_t>(0, std::numeric_limits<int32_t>::max(), "0 or more"))
      ->type_name("K")
      ->capture_default_str()
      ->group("Sampling");
  number("--top-p", &s.top_p, "Only the most probable of this sum; 1: off",
         Between<float>(std::numeric_limits<float>::denorm_min(), 1, "above 0 and at most 1"));
  number("--min-p", &s.min_p, "Only those of this share of the largest; 0: off",
         Between<float>(0, 1, "from 0 to 1"));
  number("--repeat-penalty", &s.repeat_penalty, "For tokens that were there; 1: off",
         Between<float>(std::numeric_limits<float>::denorm_min(), kMax, "above 0"));
  verb->add_option("--repeat-last-n", s.repeat_last_n,
                   "Tokens that penalties look back on; 0: none, -1: all")
      ->check(Between<int32_t>(-1, std::numeric_limits<int32_t>::max(), "-1 or more"))
      ->type_name("N")
      ->capture_default_str()
      ->group("Sampling");
  number("--presence-penalty", &s.presence_penalty, "Once for tokens that were there",
         Between<float>(-2, 2, "from -2 to 2"));
  number("--frequency-penalty", &s.frequency_penalty, "For each time that a token was there",
         Between<float>(-2, 2, "from -2 to 2"));
  AddRepeatableOption(verb, "--logit-bias", &options->logit_bias,
                      "Added to a token's logit; repeatable")
      ->check([](const std::string& text) {
        return ParseBias(text) ? "" : fmt::format("'{}' is not ID=BIAS", text);
      })
      ->type_name("ID=BIAS")
      ->group("Sampling");
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
