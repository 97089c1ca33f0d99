// Builds the description of one weight group: tensors and the steps that use them.
#ifndef SLUICE_LOADERS_ARCHITECTURES_GROUP_BUILDER_H_
#define SLUICE_LOADERS_ARCHITECTURES_GROUP_BUILDER_H_

#include <string>
#include <utility>

#include "loaders/architecture.h"

namespace sluice {

class GroupBuilder {
 public:
  // Names of tensors get the prefix "layers.N." unless layer is -1.
  GroupBuilder(GroupKind kind, int64_t layer);

  // The tensor `name`.weight [1, width].
  void RmsNorm(Buffer in, Buffer out, const std::string& name, uint64_t width, double eps);
  // The same, adding to `out`.
  void AddRmsNorm(Buffer in, Buffer out, const std::string& name, uint64_t width, double eps);
  // The same for each of `heads` parts of the row, in place; width is that of one.
  void HeadRmsNorm(Buffer data, const std::string& name, uint64_t width, int64_t heads, double eps);
  // The tensors `name`.weight and, with_bias, `name`.bias [1, width].
  void LayerNorm(Buffer in, Buffer out, const std::string& name, uint64_t width, double eps,
                 bool with_bias);
  // The tensors `name`.weight [rows, cols] and, with_bias, `name`.bias [1, rows].
  void Linear(Buffer in, Buffer out, const std::string& name, uint64_t rows, uint64_t cols,
              bool with_bias);
  // The same, adding to `out`.
  void AddLinear(Buffer in, Buffer out, const std::string& name, uint64_t rows, uint64_t cols,
                 bool with_bias);
  void Add(Step step) { group_.steps.push_back(std::move(step)); }

  GroupDescription Take() { return std::move(group_); }

 private:
  TensorIndex Require(const std::string& name, uint64_t rows, uint64_t cols, TensorKind kind);
  LinearStep MakeLinear(Buffer in, Buffer out, const std::string& name, uint64_t rows,
                        uint64_t cols, bool with_bias);

  GroupDescription group_;
  std::string prefix_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_ARCHITECTURES_GROUP_BUILDER_H_
