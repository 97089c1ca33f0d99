// The member "model" of tokenizer.json: vocabulary, merges or scores, and options.
#ifndef SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_MODEL_H_
#define SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_MODEL_H_

#include <cstdint>
#include <string>
#include <unordered_map>

#include "formats/status.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

using TokenIdsByText = std::unordered_map<std::string, int32_t>;

// Gives `text` the id. kCorrupt if another token has it.
Status PlaceToken(const std::string& text, int32_t id, TokenizerSpec* spec, TokenIdsByText* ids);

// BPE or Unigram. There will be `added_tokens` more. *vocabulary_size counts the tokens of the
// model. kUnsupported names another kind of model or an option that is not understood.
Status ReadHuggingFaceModel(const JsonValue& model, size_t added_tokens, TokenizerSpec* spec,
                            TokenIdsByText* ids, size_t* vocabulary_size);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_MODEL_H_
