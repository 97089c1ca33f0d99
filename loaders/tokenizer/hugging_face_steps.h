// The normalizer, pre-tokenizer and decoder sections of a tokenizer.json.
#ifndef SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_STEPS_H_
#define SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_STEPS_H_

#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// kUnsupported names a component of a kind that is not known here. A Sequence is read in order.
Status ReadNormalizer(const JsonValue& normalizer, std::vector<NormalizerStep>* steps);
Status ReadPreTokenizer(const JsonValue& pre_tokenizer, std::vector<PreTokenizerStep>* steps);

// The decoder of a model whose tokens are text.
Status ReadDecoder(const JsonValue& decoder, std::vector<DecoderStep>* steps);

// kUnsupported unless the decoder does what ByteLevel does.
Status CheckByteLevelDecoder(const JsonValue& decoder);

// The "type" of a component, "" if it has none.
std::string TypeOf(const JsonValue& component);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_HUGGING_FACE_STEPS_H_
