#include "loaders/architecture.h"

#include <iterator>

#include "loaders/architectures/llama.h"

namespace sluice {
namespace {

struct Architecture {
  const char* name;
  ModelDescription (*describe)(const ModelConfig&);
};

constexpr Architecture kArchitectures[] = {
    {"llama", DescribeLlama},
};

}  // namespace

Result<ModelDescription> DescribeModel(const ModelConfig& config) {
  for (const Architecture& architecture : kArchitectures) {
    if (config.architecture == architecture.name) return architecture.describe(config);
  }
  std::string known;
  for (std::string_view name : SupportedArchitectures()) {
    if (!known.empty()) known += ", ";
    known += name;
  }
  return Status(ErrorCode::kUnsupported,
                "architecture '" + config.architecture + "' is not supported; supported: " + known);
}

std::vector<TensorRequirement> RequiredTensors(const ModelDescription& description) {
  std::vector<TensorRequirement> tensors;
  for (const GroupDescription& group : description.groups) {
    tensors.insert(tensors.end(), group.tensors.begin(), group.tensors.end());
  }
  return tensors;
}

std::vector<std::string_view> SupportedArchitectures() {
  std::vector<std::string_view> names;
  for (const Architecture& architecture : kArchitectures) names.push_back(architecture.name);
  return names;
}

}  // namespace sluice
