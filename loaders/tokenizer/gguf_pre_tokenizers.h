// What the names in tokenizer.ggml.pre stand for. GGUF has the name of the pre-tokenizer only; the
// steps here are those of the tokenizer.json of the models that the name was given for.
#ifndef SLUICE_LOADERS_TOKENIZER_GGUF_PRE_TOKENIZERS_H_
#define SLUICE_LOADERS_TOKENIZER_GGUF_PRE_TOKENIZERS_H_

#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

struct GgufPreTokenizer {
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> steps;
  bool ignore_merges = false;
  bool add_bos = false;  // where the file does not say
};

// kUnsupported names a name that is not known.
Result<GgufPreTokenizer> FindGgufPreTokenizer(std::string_view name);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_GGUF_PRE_TOKENIZERS_H_
