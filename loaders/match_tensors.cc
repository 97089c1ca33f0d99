#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "formats/checked.h"
#include "formats/quote.h"
#include "loaders/checkpoint_source.h"

namespace sluice {
namespace {

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// A vector may be written as [n] or [1, n], and nothing else.
bool HasShape(const ForeignTensor& tensor, const TensorRequirement& wanted) {
  const std::vector<uint64_t>& shape = tensor.shape;
  if (wanted.kind == TensorKind::kVector && shape.size() == 1) return shape[0] == wanted.cols;
  return shape.size() == 2 && shape[0] == wanted.rows && shape[1] == wanted.cols;
}

Status SetType(const ForeignTensor& tensor, SourceTensor* out) {
  for (const SourceType type : kAllSourceTypes) {
    if (tensor.type_name != SourceTypeName(type)) continue;
    out->type = type;
    return {};
  }
  std::string known;
  for (const SourceType type : kAllSourceTypes) {
    known += known.empty() ? "" : ", ";
    known += SourceTypeName(type);
  }
  return {ErrorCode::kUnsupported,
          fmt::format("type {} cannot be read; readable: {}", tensor.type_name, known)};
}

Result<SourceTensor> MakeSourceTensor(const ForeignTensor& tensor,
                                      const TensorRequirement& wanted) {
  if (!HasShape(tensor, wanted)) {
    const std::string shape = wanted.kind == TensorKind::kVector
                                  ? fmt::format("[{}]", wanted.cols)
                                  : fmt::format("[{}, {}]", wanted.rows, wanted.cols);
    return Status(ErrorCode::kCorrupt, fmt::format("shape {}, the configuration wants {}",
                                                   ShapeText(tensor.shape), shape));
  }
  SourceTensor out;
  out.name = wanted.name;
  out.file_name = tensor.name;
  out.rows = wanted.rows;
  out.cols = wanted.cols;
  out.file_index = tensor.file_index;
  out.offset_bytes = tensor.offset_bytes;
  if (Status s = SetType(tensor, &out); !s.ok()) return s;
  uint64_t size_bytes = 0;
  if (!CheckedMul(SourceRowBytes(out.type, out.cols), out.rows, &size_bytes) ||
      size_bytes != tensor.size_bytes) {
    return Status(ErrorCode::kCorrupt, fmt::format("{} bytes of data, its shape and type take {}",
                                                   tensor.size_bytes, size_bytes));
  }
  return out;
}

// Foreign tensors by canonical name.
using TensorsByName = std::unordered_map<std::string, const ForeignTensor*>;

Result<TensorsByName> IndexTensors(const ModelConfig& config, const TensorDialect& dialect,
                                   const std::vector<ForeignTensor>& foreign,
                                   const std::vector<std::unique_ptr<ByteSource>>& files) {
  TensorsByName by_name;
  for (const ForeignTensor& tensor : foreign) {
    const std::string where = files[tensor.file_index]->name() + ": tensor " + Quoted(tensor.name);
    const std::optional<std::string> name = dialect.canonical_name(tensor.name);
    if (!name.has_value()) {
      if (dialect.is_ignored(tensor.name)) continue;
      return Status(ErrorCode::kUnsupported,
                    fmt::format("{} is none of architecture {}", where, config.architecture));
    }
    // A tied checkpoint may store the embedding a second time, as the head.
    if (config.tie_embeddings && *name == "head.weight") continue;
    if (!by_name.try_emplace(*name, &tensor).second) {
      return Status(ErrorCode::kCorrupt, where + " is there twice");
    }
  }
  return by_name;
}

}  // namespace

Result<std::vector<SourceTensor>> MatchTensors(
    const ModelConfig& config, const TensorDialect& dialect,
    const std::vector<ForeignTensor>& foreign,
    const std::vector<std::unique_ptr<ByteSource>>& files) {
  Result<ModelDescription> model = DescribeModel(config);
  if (!model.ok()) return model.status();
  Result<TensorsByName> by_name = IndexTensors(config, dialect, foreign, files);
  if (!by_name.ok()) return by_name.status();
  std::vector<SourceTensor> tensors;
  for (const TensorRequirement& wanted : RequiredTensors(*model)) {
    const auto found = by_name->find(wanted.name);
    if (found == by_name->end()) {
      return Status(ErrorCode::kCorrupt,
                    fmt::format("{}: tensor {} is missing", files.front()->name(),
                                Quoted(dialect.foreign_name(wanted.name))));
    }
    const ForeignTensor& tensor = *found->second;
    Result<SourceTensor> matched = MakeSourceTensor(tensor, wanted);
    if (!matched.ok()) {
      return matched.status().WithContext(files[tensor.file_index]->name() + ": tensor " +
                                          Quoted(tensor.name));
    }
    tensors.push_back(*std::move(matched));
    by_name->erase(found);
  }
  if (!by_name->empty()) {
    const ForeignTensor& tensor = *by_name->begin()->second;
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: tensor {} is not part of the configured model",
                              files[tensor.file_index]->name(), Quoted(tensor.name)));
  }
  return tensors;
}

std::string SummarizeTypes(const std::vector<SourceTensor>& tensors) {
  std::map<SourceType, size_t> counts;
  for (const SourceTensor& tensor : tensors) ++counts[tensor.type];
  std::vector<std::pair<SourceType, size_t>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [type, count] : sorted) {
    text += fmt::format("{}{} x {}", text.empty() ? "" : ", ", SourceTypeName(type), count);
  }
  return text;
}

std::string LastPathComponent(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos || path.size() == 1 ? path
                                                                         : path.substr(slash + 1));
}

}  // namespace sluice
