// Regular expressions in Oniguruma's syntax on PCRE2: just-in-time compiled where the machine
// allows it, interpreted otherwise, with bounds on backtracking, depth and memory.
#ifndef SLUICE_LOADERS_TOKENIZER_REGEX_H_
#define SLUICE_LOADERS_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <string_view>

#include "formats/status.h"

namespace sluice {

// An immutable compiled expression; any number of threads may match with it.
// What all expressions of a tokenizer's normalizer, or of its pre-tokenizer, may be compiled to.
inline constexpr size_t kMaxRegexBytes = 16 << 10;

class Regex {
 public:
  // `pattern` as in tokenizer.json (regex_syntax.h). kUnsupported if it cannot be expressed in
  // PCRE2, or has more than 4 KiB; kLimitExceeded: it is compiled to more than kMaxRegexBytes.
  static Result<Regex> Compile(std::string_view pattern);

  struct Compiled;
  const Compiled& compiled() const { return *compiled_; }
  size_t size_bytes() const;  // compiled, without the machine code

 private:
  explicit Regex(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
  std::shared_ptr<const Compiled> compiled_;
};

struct RegexMatch {
  size_t begin = 0;
  size_t end = 0;
};

// The successive matches of one expression in one text, as Oniguruma's find iteration gives them:
// an empty match right behind the previous match is passed over. For one thread. Keeps references
// to both.
class RegexScanner {
 public:
  // `text` is valid UTF-8.
  RegexScanner(const Regex& regex, std::string_view text);
  ~RegexScanner();
  RegexScanner(const RegexScanner&) = delete;
  RegexScanner& operator=(const RegexScanner&) = delete;

  // False at the end. kLimitExceeded if the expression needs more steps or memory than is allowed.
  Result<bool> Next(RegexMatch* match);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_REGEX_H_
