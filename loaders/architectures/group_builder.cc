#include "loaders/architectures/group_builder.h"

namespace sluice {

GroupBuilder::GroupBuilder(GroupKind kind, int64_t layer) {
  group_.kind = kind;
  group_.layer = layer;
  if (layer >= 0) prefix_ = "layers." + std::to_string(layer) + ".";
}

TensorIndex GroupBuilder::Require(const std::string& name, uint64_t rows, uint64_t cols,
                                  TensorKind kind) {
  group_.tensors.push_back({prefix_ + name, rows, cols, kind});
  return static_cast<TensorIndex>(group_.tensors.size() - 1);
}

void GroupBuilder::RmsNorm(Buffer in, Buffer out, const std::string& name, uint64_t width,
                           double eps) {
  const TensorIndex weight = Require(name + ".weight", 1, width, TensorKind::kVector);
  Add(RmsNormStep{in, out, weight, static_cast<float>(eps)});
}

void GroupBuilder::AddRmsNorm(Buffer in, Buffer out, const std::string& name, uint64_t width,
                              double eps) {
  const TensorIndex weight = Require(name + ".weight", 1, width, TensorKind::kVector);
  Add(RmsNormStep{in, out, weight, static_cast<float>(eps), 1, /*add_to_out=*/true});
}

void GroupBuilder::HeadRmsNorm(Buffer data, const std::string& name, uint64_t width, int64_t heads,
                               double eps) {
  const TensorIndex weight = Require(name + ".weight", 1, width, TensorKind::kVector);
  Add(RmsNormStep{data, data, weight, static_cast<float>(eps), heads});
}

void GroupBuilder::LayerNorm(Buffer in, Buffer out, const std::string& name, uint64_t width,
                             double eps, bool with_bias) {
  const TensorIndex weight = Require(name + ".weight", 1, width, TensorKind::kVector);
  const TensorIndex bias =
      with_bias ? Require(name + ".bias", 1, width, TensorKind::kVector) : kNoTensor;
  Add(LayerNormStep{in, out, weight, bias, static_cast<float>(eps)});
}

LinearStep GroupBuilder::MakeLinear(Buffer in, Buffer out, const std::string& name, uint64_t rows,
                                    uint64_t cols, bool with_bias) {
  LinearStep step{in, out, Require(name + ".weight", rows, cols, TensorKind::kMatrix)};
  if (with_bias) step.bias = Require(name + ".bias", 1, rows, TensorKind::kVector);
  return step;
}

void GroupBuilder::Linear(Buffer in, Buffer out, const std::string& name, uint64_t rows,
                          uint64_t cols, bool with_bias) {
  Add(MakeLinear(in, out, name, rows, cols, with_bias));
}

void GroupBuilder::AddLinear(Buffer in, Buffer out, const std::string& name, uint64_t rows,
                             uint64_t cols, bool with_bias) {
  LinearStep step = MakeLinear(in, out, name, rows, cols, with_bias);
  step.add_to_out = true;
  Add(step);
}

}  // namespace sluice
