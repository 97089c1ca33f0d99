// config.json of a Hugging Face checkpoint as a model configuration.
#ifndef SLUICE_LOADERS_HF_CONFIG_H_
#define SLUICE_LOADERS_HF_CONFIG_H_

#include <string_view>

#include "formats/model_config.h"
#include "formats/status.h"

namespace sluice {

// Means what transformers makes of the same text: its defaults, the old spelling of rotary
// embeddings (rope_theta, rope_scaling) and the new one (rope_parameters). `name` stays empty. The
// text is untrusted.
// Errors: kUnsupported (an architecture or a feature, by name), kCorrupt (names the field).
Result<ModelConfig> ModelConfigFromHuggingFace(std::string_view config_json);

}  // namespace sluice

#endif  // SLUICE_LOADERS_HF_CONFIG_H_
