// Splits text into the pieces within which BPE merges, and spells them in the byte alphabet.
#ifndef SLUICE_LOADERS_TOKENIZER_PRE_TOKENIZER_H_
#define SLUICE_LOADERS_TOKENIZER_PRE_TOKENIZER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/regex.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// Text and the ascending, not overlapping, not empty ranges of it that matter.
struct PreTokenizedText {
  struct Piece {
    size_t begin;
    size_t end;
  };
  std::string text;
  std::vector<Piece> pieces;

  std::string_view View(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

class PreTokenizer {
 public:
  static Result<PreTokenizer> Create(const std::vector<PreTokenizerStep>& steps);

  // `text` is valid UTF-8. Linear in it as long as the expressions are.
  Result<PreTokenizedText> Split(std::string_view text) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::optional<Regex> regex;
  };
  static Status ApplyStep(const Step& step, PreTokenizedText* text);

  std::vector<Step> steps_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_PRE_TOKENIZER_H_
