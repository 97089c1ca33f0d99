#include "loaders/weight_plan.h"

namespace sluice {
namespace {

using Mode = QuantizationPlan::Mode;

WeightType Int4For(const QuantizationPlan& plan, uint64_t cols) {
  uint16_t group = plan.int4_group;
  while (group > 32 && cols % group != 0) group /= 2;
  return {WeightKind::kInt4, plan.int4_symmetric ? WeightOffset::kNone : WeightOffset::kZeroPoint,
          group};
}

WeightType MatrixType(const QuantizationPlan& plan, const WeightType& source, uint64_t cols,
                      bool embedding_or_head) {
  const WeightType int8 = {WeightKind::kInt8, WeightOffset::kNone, 32};
  switch (plan.mode) {
    case Mode::kKeep:
      return source;
    case Mode::kF16:
      return {WeightKind::kF16, WeightOffset::kNone, 0};
    case Mode::kInt8:
      return int8;
    case Mode::kInt4:
      return Int4For(plan, cols);
    case Mode::kAuto:
      if (source.quantized()) return source;
      break;
    case Mode::kMixed:
      break;
  }
  return embedding_or_head ? int8 : Int4For(plan, cols);
}

}  // namespace

std::vector<PlannedGroup> PlanWeights(
    const ModelDescription& description, const QuantizationPlan& quantization,
    const std::function<WeightType(const std::string& name)>& source_type) {
  std::vector<PlannedGroup> groups;
  for (const GroupDescription& group : description.groups) {
    PlannedGroup planned;
    planned.kind = group.kind;
    if (group.layer >= 0) planned.layer = static_cast<uint32_t>(group.layer);
    for (const TensorRequirement& tensor : group.tensors) {
      const WeightType source = source_type(tensor.name);
      const bool matrix = tensor.kind != TensorKind::kVector;
      const bool outer =
          tensor.name == description.embedding_tensor || tensor.name == description.head_tensor;
      // Rows of a table of positions are few and read once for a token.
      const bool keep = !matrix || tensor.name == description.position_tensor;
      const WeightType type = !keep ? MatrixType(quantization, source, tensor.cols, outer) : source;
      const uint32_t tile_rows = tensor.kind == TensorKind::kMatrix ? kTileRows : 1;
      planned.tensors.push_back({tensor.name, type, tile_rows, tensor.rows, tensor.cols});
    }
    groups.push_back(std::move(planned));
  }
  return groups;
}

Result<QuantizationPlan> ParseQuantization(std::string_view text) {
  const Status wrong(ErrorCode::kInvalidArgument,
                     "quantization '" + std::string(text) +
                         "' is not one of auto, keep, f16, int8, int4, mixed; int4 and mixed may "
                         "be followed by :g32, :g64 or :g128 and by :sym");
  QuantizationPlan plan;
  std::string_view rest = text;
  const auto next = [&rest] {
    const size_t colon = rest.find(':');
    const std::string_view word = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
    return word;
  };
  if (!text.empty() && text.back() == ':') return wrong;
  const std::string_view mode = next();
  if (mode == "auto") {
    plan.mode = Mode::kAuto;
  } else if (mode == "keep") {
    plan.mode = Mode::kKeep;
  } else if (mode == "f16") {
    plan.mode = Mode::kF16;
  } else if (mode == "int8") {
    plan.mode = Mode::kInt8;
  } else if (mode == "int4") {
    plan.mode = Mode::kInt4;
  } else if (mode == "mixed") {
    plan.mode = Mode::kMixed;
  } else {
    return wrong;
  }
  const bool int4 = plan.mode == Mode::kInt4 || plan.mode == Mode::kMixed;
  while (!rest.empty()) {
    const std::string_view word = next();
    if (!int4) return wrong;
    if (word == "g32" || word == "g64" || word == "g128") {
      plan.int4_group = word == "g32" ? 32 : word == "g64" ? 64 : 128;
    } else if (word == "sym") {
      plan.int4_symmetric = true;
    } else {
      return wrong;
    }
  }
  return plan;
}

}  // namespace sluice
