// Kinds of options, each with its check and what the help says of its value. Verbs declare theirs
// with these: CLI11 takes seconds to compile, so few files see it.
#ifndef SLUICE_TOOLS_OPTION_KINDS_H_
#define SLUICE_TOOLS_OPTION_KINDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sluice {

// An option of a verb. Its methods say more of it and return it.
class DeclaredOption {
 public:
  explicit DeclaredOption(CLI::Option* option) : option_(option) {}

  const DeclaredOption& Required() const;
  const DeclaredOption& ShowDefault() const;
  const DeclaredOption& Type(const std::string& name) const;  // "FILE"
  const DeclaredOption& Group(const std::string& heading) const;
  const DeclaredOption& Excludes(const DeclaredOption& other) const;
  const DeclaredOption& Needs(const DeclaredOption& other) const;

 private:
  CLI::Option* option_;
};

// "512", "64K", "1.5G": bytes, with K, M, G, T as powers of 1,024 (KiB and KB too). nullopt if it
// is anything else, negative, or larger than 2^63.
std::optional<uint64_t> ParseSize(const std::string& text);

// "12=-0.5": a token and what is added to its logit. nullopt if it is anything else.
std::optional<std::pair<int32_t, float>> ParseBias(const std::string& text);

// Values lie where the pointers point to as long as the verb is there.
DeclaredOption AddFlag(CLI::App* verb, const std::string& names, bool* value,
                       const std::string& description);
DeclaredOption AddTextOption(CLI::App* verb, const std::string& names, std::string* value,
                             const std::string& description);
DeclaredOption AddTextOption(CLI::App* verb, const std::string& names,
                             std::optional<std::string>* value, const std::string& description);

// An option whose value is one of `choices`.
DeclaredOption AddChoiceOption(CLI::App* verb, const std::string& names, std::string* value,
                               std::vector<std::string> choices, const std::string& description);

// An option whose value is a number from `low` to `high`; `range` says so: "0 or more".
DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, int32_t* value,
                               int32_t low, int32_t high, const std::string& range,
                               const std::string& description);
DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, int64_t* value,
                               int64_t low, int64_t high, const std::string& range,
                               const std::string& description);
DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, float* value, float low,
                               float high, const std::string& range,
                               const std::string& description);
DeclaredOption AddNumberOption(CLI::App* verb, const std::string& names, double* value, double low,
                               double high, const std::string& range,
                               const std::string& description);

// An option whose value is a number from 1 on.
DeclaredOption AddCountOption(CLI::App* verb, const std::string& names, int64_t* count,
                              const std::string& description);

// An option whose value is a size of at least one byte.
DeclaredOption AddSizeOption(CLI::App* verb, const std::string& names, uint64_t* bytes,
                             const std::string& description);

// The same, where 0 has a meaning too; none while it is not given.
DeclaredOption AddSizeOrNoneOption(CLI::App* verb, const std::string& names,
                                   std::optional<uint64_t>* bytes, const std::string& description);

// An option that may be given several times, one value each; values are taken as they are.
DeclaredOption AddRepeatableOption(CLI::App* verb, const std::string& names,
                                   std::vector<std::string>* values,
                                   const std::string& description);
// The same, of values that ParseBias takes.
DeclaredOption AddBiasOption(CLI::App* verb, const std::string& names,
                             std::vector<std::string>* values, const std::string& description);

// --seed, --threads, --prefill, --quiet
DeclaredOption AddSeedOption(CLI::App* verb, uint64_t* seed, const std::string& description);
DeclaredOption AddSeedOption(CLI::App* verb, std::optional<uint64_t>* seed,
                             const std::string& description);
DeclaredOption AddThreadsOption(CLI::App* verb, int* threads);
DeclaredOption AddPrefillOption(CLI::App* verb, std::string* prefill);
void AddQuietOption(CLI::App* verb, bool* quiet);

// Of an option that the verb has.
void SetDescription(CLI::App* verb, const std::string& name, const std::string& description);

}  // namespace sluice

#endif  // SLUICE_TOOLS_OPTION_KINDS_H_
