// The tokenizer of a foreign checkpoint in sluice's own JSON. Private to loaders.
#ifndef SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_
#define SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_

#include <cstdint>
#include <string>

#include "formats/gguf.h"
#include "formats/status.h"

namespace sluice {

// Tokenizer::ToJson of the metadata tokenizer.ggml.*. Errors: kNotFound, kCorrupt (also tokens
// beyond `vocab_size`, the rows of the embedding), kUnsupported, kDoesNotFit (more than
// `max_memory_bytes` to read it).
Result<std::string> TokenizerJsonOfGguf(const GgufFile& gguf, int64_t vocab_size,
                                        uint64_t max_memory_bytes);

// The same of tokenizer.json, or else tokenizer.model, and what belongs to it in a directory.
// Errors name the file.
Result<std::string> TokenizerJsonOfHuggingFace(const std::string& directory, int64_t vocab_size,
                                               uint64_t max_memory_bytes);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHECKPOINT_TOKENIZER_H_
