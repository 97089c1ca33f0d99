// Splits text into the pieces within which a model finds tokens, and spells them as it does: in the
// byte alphabet, or with a character for a space.
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
  // A piece is cut into consecutive parts, each of which is a match or lies between matches. A part
  // can be empty only if it is a match.
  struct Part {
    size_t begin;
    size_t end;
    bool is_match;
  };
  std::string text;
  std::vector<Piece> pieces;

  std::string_view View(const Piece& piece) const {
    return std::string_view(text).substr(piece.begin, piece.end - piece.begin);
  }
};

class PreTokenizer {
 public:
  // Byte-level models need exactly one ByteLevel step, other models have none.
  static Result<PreTokenizer> Create(const std::vector<PreTokenizerStep>& steps, bool byte_level);

  // `text` is valid UTF-8. Linear in it as long as the expressions are. at_start: nothing has come
  // before, for Metaspace's "first".
  Result<PreTokenizedText> Split(std::string_view text, bool at_start) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::optional<Regex> regex;
  };
  static Status FindParts(const Step& step, std::string_view view, size_t base,
                          std::vector<PreTokenizedText::Part>* parts);
  static Status ApplyStep(const Step& step, bool at_start, PreTokenizedText* text);

  std::vector<Step> steps_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_PRE_TOKENIZER_H_
