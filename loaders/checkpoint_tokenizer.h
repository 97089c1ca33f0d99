// The tokenizer of a foreign checkpoint in sluice's own JSON. Private to loaders.
#ifndef SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_
#define SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_

#include <string>

#include "formats/gguf.h"
#include "formats/status.h"

namespace sluice {

Result<std::string> TokenizerJsonOfGguf(const GgufFile& gguf);
Result<std::string> TokenizerJsonOfHuggingFace(const std::string& directory);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_
