// Rotary embeddings in a config.json. Private to loaders.
#ifndef SLUICE_LOADERS_HF_ROPE_H_
#define SLUICE_LOADERS_HF_ROPE_H_

#include "formats/model_config.h"
#include "formats/status.h"
#include "formats/strict_json.h"

namespace sluice {

// What an architecture fixes about its rotation.
struct RopeRules {
  double theta = 10000.0;         // where the file does not say
  double original_context = 0;    // the same; 0: max_position_embeddings
  double partial = 0;             // default of partial_rotary_factor; 0: it is not understood
  bool yarn_is_longrope = false;  // Phi-3's first files call it so
};

// Reads rope_scaling (old) or rope_parameters (new) into *rope. `model` has its head_dim and
// context_length. Errors: kUnsupported (a type or feature, by name), kCorrupt (names the field).
Status ReadHuggingFaceRope(const nlohmann::json& config, const ModelConfig& model,
                           const RopeRules& rules, RopeConfig* rope);

// Two rotations: rope for the layers that see all, local_rope for those with a window, each with
// its base where the file does not say. In the old form rope_scaling is of the first only.
Status ReadHuggingFaceRopePair(const nlohmann::json& config, double theta, double local_theta,
                               ModelConfig* model);

}  // namespace sluice

#endif  // SLUICE_LOADERS_HF_ROPE_H_
