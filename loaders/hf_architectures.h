// What the architectures of transformers call the numbers of a model, and what those are where the
// file is silent. Private to loaders.
#ifndef SLUICE_LOADERS_HF_ARCHITECTURES_H_
#define SLUICE_LOADERS_HF_ARCHITECTURES_H_

#include <span>

#include "formats/model_config.h"
#include "formats/status.h"
#include "formats/strict_json.h"

namespace sluice {

struct HuggingFaceArchitecture {
  const char* model_type;
  const char* class_name;  // the causal language model; first of "architectures"
  // Fills everything but `name`; `architecture` is set already. Errors: kUnsupported, kCorrupt.
  Status (*read)(const nlohmann::json& config, ModelConfig* model);
  const char* architecture;  // sluice's name
};

std::span<const HuggingFaceArchitecture> HuggingFaceArchitectures();

}  // namespace sluice

#endif  // SLUICE_LOADERS_HF_ARCHITECTURES_H_
