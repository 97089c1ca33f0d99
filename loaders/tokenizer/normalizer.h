// The normalizer of a tokenizer: steps applied to text before it is split.
#ifndef SLUICE_LOADERS_TOKENIZER_NORMALIZER_H_
#define SLUICE_LOADERS_TOKENIZER_NORMALIZER_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/precompiled_map.h"
#include "loaders/tokenizer/regex.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

class Normalizer {
 public:
  static Result<Normalizer> Create(const std::vector<NormalizerStep>& steps);

  bool empty() const { return steps_.empty(); }

  // `text` is valid UTF-8, and so is the result. kLimitExceeded: an expression, or a result of more
  // than 16 times the text and 1 MiB.
  Result<std::string> Apply(std::string_view text) const;

 private:
  struct Step {
    NormalizerStep spec;
    std::optional<Regex> regex;
    std::optional<PrecompiledMap> map;
  };
  static Result<Step> Prepare(const NormalizerStep& spec);
  static Result<std::string> ApplyStep(const Step& step, std::string text);

  std::vector<Step> steps_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_NORMALIZER_H_
