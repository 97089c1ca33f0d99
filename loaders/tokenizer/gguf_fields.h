// The tokenizer's metadata of a GGUF file.
#ifndef SLUICE_LOADERS_TOKENIZER_GGUF_FIELDS_H_
#define SLUICE_LOADERS_TOKENIZER_GGUF_FIELDS_H_

#include "formats/gguf.h"
#include "formats/status.h"
#include "loaders/tokenizer/tokenizer.h"

namespace sluice {

// The result has views into `file`. Errors: kNotFound or kCorrupt, which name the key.
Result<GgufTokenizerFields> TokenizerFieldsOfGguf(const GgufFile& file);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_GGUF_FIELDS_H_
