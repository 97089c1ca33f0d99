#include "tools/option_kinds.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace sluice {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxCount = std::numeric_limits<int32_t>::max();

// The whole of `text` as a finite number.
template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(static_cast<double>(value))) return std::nullopt;
  return value;
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

// From 0 to 2^64 - 1, in decimal digits alone.
CLI::Validator WholeNumber() {
  return Between<uint64_t>(0, std::numeric_limits<uint64_t>::max(), "a whole number");
}

template <typename T>
DeclaredOption AddBetween(CLI::App* verb, const std::string& names, T* value, T low, T high,
                          const std::string& range, const std::string& description) {
  return DeclaredOption(verb->add_option(names, *value, description)
                            ->check(Between<T>(low, high, range))
                            ->type_name("NUMBER"));
}

}  // namespace

const DeclaredOption& DeclaredOption::Required() const {
  option_->required();
  return *this;
}
const DeclaredOption& DeclaredOption::ShowDefault() const {
  option_->capture_default_str();
  return *this;
}
const DeclaredOption& DeclaredOption::Type(const std::string& name) const {
  option_->type_name(name);
  return *this;
}
const DeclaredOption& DeclaredOption::Group(const std::string& heading) const {
  option_->group(heading);
  return *this;
}
const DeclaredOption& DeclaredOption::Excludes(const DeclaredOption& other) const {
  option_->excludes(other.option_);
  return *this;
}
const DeclaredOption& DeclaredOption::Needs(const DeclaredOption& other) const {
  option_->needs(other.option_);
  return *this;
}

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

DeclaredOption AddFlag(CLI::App* verb, const std::string& names, bool* value,
                       const std::string& description) {
  return DeclaredOption(verb->add_flag(names, *value, description));
}

DeclaredOption AddTextOption(CLI::App* verb, const std::string& names, std::string* value,
                             const std::string& description) {
  return DeclaredOption(verb->add_option(names, *value, description));
}

DeclaredOption AddTextOption(CLI::App* verb, const std::string& names,
                             std::optional<std::string>* value, const std::string& description) {
  return DeclaredOption(verb->add_option(names, *value, description));
}

DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, int32_t* value,
                               int32_t low, int32_t high, const std::string& range,
                               const std::string& description) {
  return AddBetween(verb, names, value, low, high, range, description);
}

DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, int64_t* value,
                               int64_t low, int64_t high, const std::string& range,
                               const std::string& description) {
  return AddBetween(verb, names, value, low, high, range, description);
}

DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, float* value, float low,
                               float high, const std::string& range,
                               const std::string& description) {
  return AddBetween(verb, names, value, low, high, range, description);
}

DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, double* value, double low,
                               double high, const std::string& range,
                               const std::string& description) {
  return AddBetween(verb, names, value, low, high, range, description);
}

DeclaredOption AddChoiceOption(CLI::App* verb, const std::string& names, std::string* value,
                               std::vector<std::string> choices, const std::string& description) {
  const std::string type = fmt::format("{}", fmt::join(choices, "|"));
  return DeclaredOption(
      verb->add_option(names, *value, description)
          ->check(CLI::Validator(
              [choices = std::move(choices)](const std::string& text) {
                if (std::find(choices.begin(), choices.end(), text) != choices.end()) {
                  return std::string();
                }
                return fmt::format("'{}' is not one of {}", text, fmt::join(choices, ", "));
              },
              ""))
          ->type_name(type)
          ->capture_default_str());
}

DeclaredOption AddCountOption(CLI::App* verb, const std::string& names, int64_t* count,
                              const std::string& description) {
  return DeclaredOption(verb->add_option(names, *count, description)
                            ->check(Between<int64_t>(1, kMaxCount, "a number from 1 on"))
                            ->type_name("N"));
}

DeclaredOption AddSizeOption(CLI::App* verb, const std::string& names, uint64_t* bytes,
                             const std::string& description) {
  const auto check = [](const std::string& text) {
    const auto size = ParseSize(text);
    if (size && *size > 0) return std::string();
    return fmt::format("'{}' is not a size such as 512M or 1.5G", text);
  };
  return DeclaredOption(
      verb->add_option_function<std::string>(
              names, [bytes](const std::string& text) { *bytes = ParseSize(text).value_or(0); },
              description)
          ->check(check)
          ->type_name("SIZE"));
}

DeclaredOption AddSizeOrNoneOption(CLI::App* verb, const std::string& names,
                                   std::optional<uint64_t>* bytes, const std::string& description) {
  const auto check = [](const std::string& text) {
    return ParseSize(text) ? std::string()
                           : fmt::format("'{}' is not a size such as 512M, 1.5G or 0", text);
  };
  return DeclaredOption(
      verb->add_option_function<std::string>(
              names, [bytes](const std::string& text) { *bytes = ParseSize(text); }, description)
          ->check(check)
          ->type_name("SIZE"));
}

DeclaredOption AddRepeatableOption(CLI::App* verb, const std::string& names,
                                   std::vector<std::string>* values,
                                   const std::string& description) {
  return DeclaredOption(verb->add_option(names, *values, description)
                            ->expected(1)
                            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
                            ->allow_extra_args(false));
}

DeclaredOption AddThreadsOption(CLI::App* verb, int* threads) {
  return DeclaredOption(
      verb->add_option("--threads", *threads, "Default: one for each core")
          ->check(Between<int>(1, kMaxThreads, "a number of threads from 1 to 1024"))
          ->type_name("N"));
}

DeclaredOption AddPrefillOption(CLI::App* verb, std::string* prefill) {
  return AddChoiceOption(
      verb, "--prefill", prefill, {"int8", "bf16", "f16"},
      "Products of prompts: bf16 rounds weights and activations to it, which is faster with AMX "
      "and gives other results, and so does f16 on a GPU, by cuBLASLt; answers are computed in "
      "int8 all the same");
}

void AddQuietOption(CLI::App* verb, bool* quiet) {
  verb->add_flag("--quiet", *quiet, "Nothing on stderr but errors");
}

DeclaredOption AddBiasOption(CLI::App* verb, const std::string& names,
                             std::vector<std::string>* values, const std::string& description) {
  return DeclaredOption(verb->add_option(names, *values, description)
                            ->expected(1)
                            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
                            ->allow_extra_args(false)
                            ->check([](const std::string& text) {
                              return ParseBias(text) ? ""
                                                     : fmt::format("'{}' is not ID=BIAS", text);
                            })
                            ->type_name("ID=BIAS"));
}

DeclaredOption AddSeedOption(CLI::App* verb, uint64_t* seed, const std::string& description) {
  return DeclaredOption(
      verb->add_option("--seed", *seed, description)->check(WholeNumber())->type_name("N"));
}

DeclaredOption AddSeedOption(CLI::App* verb, std::optional<uint64_t>* seed,
                             const std::string& description) {
  return DeclaredOption(
      verb->add_option("--seed", *seed, description)->check(WholeNumber())->type_name("N"));
}

void SetDescription(CLI::App* verb, const std::string& name, const std::string& description) {
  verb->get_option(name)->description(description);
}

}  // namespace sluice
