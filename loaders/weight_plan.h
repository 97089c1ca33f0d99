// Which type every tensor of a model gets, and its place in the file.
#ifndef SLUICE_LOADERS_WEIGHT_PLAN_H_
#define SLUICE_LOADERS_WEIGHT_PLAN_H_

#include <functional>
#include <string>
#include <vector>

#include "formats/sluice_writer.h"
#include "loaders/architecture.h"
#include "loaders/convert.h"

namespace sluice {

// Groups and tensors in the order of use. `source_type` gives the type that would keep a tensor of
// the description without loss.
std::vector<PlannedGroup> PlanWeights(
    const ModelDescription& description, const QuantizationPlan& quantization,
    const std::function<WeightType(const std::string& name)>& source_type);

}  // namespace sluice

#endif  // SLUICE_LOADERS_WEIGHT_PLAN_H_
