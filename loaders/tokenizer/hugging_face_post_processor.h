// What a post-processor of tokenizer.json puts before and after a text.
#ifndef SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_POST_PROCESSOR_H_
#define SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_POST_PROCESSOR_H_

#include "formats/status.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// Sets prefix_ids and suffix_ids. kUnsupported names a kind that is not understood.
Status ReadPostProcessor(const JsonValue& processor, TokenizerSpec* spec);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_POST_PROCESSOR_H_
