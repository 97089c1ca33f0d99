// From tokens to text where tokens are text themselves: which steps apply to a token alone, and
// which to the joined text. Any order of steps that tokenizer.json can express but no model uses is
// refused.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKEN_DECODER_H_
#define SLUICE_LOADERS_TOKENIZER_TOKEN_DECODER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

class TokenDecoder {
 public:
  // kUnsupported names the step that stands where it is not understood.
  static Result<TokenDecoder> Create(const std::vector<DecoderStep>& steps);

  // The text of one token; `first`: no other token came before it.
  std::string TextOf(std::string_view spelling, bool first) const;

  bool first_differs() const { return first_differs_; }
  // Whether "<0x0A>" is a byte. Consecutive bytes are text if all together are well-formed UTF-8,
  // else each is U+FFFD, as in `tokenizers`.
  bool byte_fallback() const { return byte_fallback_; }
  // At the beginning of the text up to strip_count() times this character is left out.
  std::string_view strip_character() const { return strip_character_; }
  int32_t strip_count() const { return strip_count_; }

 private:
  std::vector<DecoderStep> token_steps_;
  bool first_differs_ = false;
  bool byte_fallback_ = false;
  std::string strip_character_;
  int32_t strip_count_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKEN_DECODER_H_
