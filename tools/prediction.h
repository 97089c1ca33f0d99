// What plan would have said of a run, from rates that are known.
#ifndef SLUICE_TOOLS_PREDICTION_H_
#define SLUICE_TOOLS_PREDICTION_H_

#include <optional>
#include <string>

#include "runtime/planner.h"
#include "sluice/engine.h"
#include "tools/options.h"

namespace sluice {

// None when this machine's rates were not measured yet (plan does), weights are mapped, or
// a GPU computes. `path`
// is the .sluice file that the engine runs.
std::optional<Plan> PredictionOf(const Engine& engine, const ModelOptions& options,
                                 const std::string& path);

}  // namespace sluice

#endif  // SLUICE_TOOLS_PREDICTION_H_
