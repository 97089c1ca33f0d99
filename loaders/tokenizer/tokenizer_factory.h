// From a validated description to a Tokenizer; what the readers share.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKENIZER_FACTORY_H_
#define SLUICE_LOADERS_TOKENIZER_TOKENIZER_FACTORY_H_

#include <string>
#include <string_view>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

class TokenizerFactory {
 public:
  // Checks every id and text of `spec`, which may come from a hostile file, and builds the tables.
  static Result<Tokenizer> Create(TokenizerSpec spec);
};

Result<TokenizerSpec> ReadHuggingFaceTokenizer(const HuggingFaceTokenizerFiles& files);
// A SentencePiece model (tokenizer.model) by itself.
Result<TokenizerSpec> ReadSentencePieceTokenizer(std::string_view model, uint64_t max_bytes);
Result<TokenizerSpec> ReadGgufTokenizer(const GgufTokenizerFields& fields);
Result<TokenizerSpec> ReadCompactTokenizer(std::string_view json);
std::string WriteCompactTokenizer(const TokenizerSpec& spec);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKENIZER_FACTORY_H_
