#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>

#include "formats/checked.h"
#include "formats/quote.h"
#include "loaders/checkpoint_source.h"

namespace sluice {
namespace {

// Queries, keys and values (fused), the attention's output, and two of the feed-forward network.
constexpr size_t kMinTensorsPerLayer = 4;

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The rows of a canonical tensor within the foreign one that holds them. Of a vector, its elements.
struct Slice {
  uint64_t first = 0;
  uint64_t total = 0;  // of the foreign tensor
  // "q", "k" or "v", in place of first: the rows of InterleavedRows.
  std::string_view interleaved = {};
};

// A vector may be written as [n] or [1, n], and nothing else.
std::vector<std::vector<uint64_t>> ShapesOf(const TensorRequirement& wanted, uint64_t total) {
  if (wanted.kind == TensorKind::kVector) return {{total}, {1, total}};
  return {{total, wanted.cols}};
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

// Rows of q, k and v in a tensor that holds them head by head (TensorDialect::interleaves_qkv).
std::vector<uint32_t> InterleavedRows(const ModelConfig& config, std::string_view part) {
  const auto dim = static_cast<uint64_t>(config.head_dim);
  const auto group = static_cast<uint64_t>(config.num_heads / config.num_kv_heads);
  const uint64_t heads = part == "q" ? group : 1;
  const uint64_t first = part == "q" ? 0 : part == "k" ? group : group + 1;
  std::vector<uint32_t> rows;
  for (uint64_t kv_head = 0; kv_head < static_cast<uint64_t>(config.num_kv_heads); ++kv_head) {
    for (uint64_t i = 0; i < heads * dim; ++i) {
      rows.push_back(static_cast<uint32_t>((kv_head * (group + 2) + first) * dim + i));
    }
  }
  return rows;
}

Result<SourceTensor> MakeSourceTensor(const ModelConfig& config, const ForeignTensor& tensor,
                                      const TensorRequirement& wanted, const Slice& slice) {
  const std::vector<std::vector<uint64_t>> shapes = ShapesOf(wanted, slice.total);
  if (std::find(shapes.begin(), shapes.end(), tensor.shape) == shapes.end()) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("shape {}, the configuration wants {}", ShapeText(tensor.shape),
                              ShapeText(shapes.front())));
  }
  SourceTensor out;
  out.name = wanted.name;
  out.file_name = tensor.name;
  out.rows = wanted.rows;
  out.cols = wanted.cols;
  out.file_index = tensor.file_index;
  out.offset_bytes = tensor.offset_bytes;
  if (Status s = SetType(tensor, &out); !s.ok()) return s;
  const bool vector = wanted.kind == TensorKind::kVector;
  const uint64_t foreign_cols = vector ? slice.total : wanted.cols;
  uint64_t size_bytes = 0;
  if (!CheckedMul(SourceRowBytes(out.type, foreign_cols), vector ? 1 : slice.total, &size_bytes) ||
      size_bytes != tensor.size_bytes) {
    return Status(ErrorCode::kCorrupt, fmt::format("{} bytes of data, its shape and type take {}",
                                                   tensor.size_bytes, size_bytes));
  }
  const bool part = slice.first != 0 || !slice.interleaved.empty();
  if (vector && part && out.type != SourceType::kF32 && out.type != SourceType::kF16 &&
      out.type != SourceType::kBF16) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("a part of a vector of type {}", SourceTypeName(out.type)));
  }
  // Within the tensor, whose size was just checked.
  out.offset_bytes += slice.first * (size_bytes / slice.total);
  if (!slice.interleaved.empty()) out.row_order = InterleavedRows(config, slice.interleaved);
  return out;
}

// A tensor that holds several, and which part of it is wanted.
struct FusedTensor {
  std::string name;
  Slice slice;
};

std::optional<FusedTensor> FusedTensorOf(const ModelConfig& config, const TensorDialect& dialect,
                                         const std::string& wanted) {
  const auto query = static_cast<uint64_t>(config.num_heads * config.head_dim);
  const auto kv = static_cast<uint64_t>(config.num_kv_heads * config.head_dim);
  const auto ffn = static_cast<uint64_t>(config.intermediate_size);
  struct Part {
    const char *part, *whole;
    uint64_t first, total;
  };
  for (const Part& p : {Part{".attn.q.", ".attn.qkv.", 0, query + 2 * kv},
                        Part{".attn.k.", ".attn.qkv.", query, query + 2 * kv},
                        Part{".attn.v.", ".attn.qkv.", query + kv, query + 2 * kv},
                        Part{".ffn.gate.", ".ffn.gate_up.", 0, 2 * ffn},
                        Part{".ffn.up.", ".ffn.gate_up.", ffn, 2 * ffn}}) {
    const std::string_view part = p.part;
    const size_t at = wanted.find(part);
    if (at == std::string::npos) continue;
    FusedTensor fused;
    fused.name = std::string(wanted).replace(at, part.size(), p.whole);
    fused.slice.first = p.first;
    fused.slice.total = p.total;
    if (dialect.interleaves_qkv && config.num_kv_heads > 1 && part.starts_with(".attn.")) {
      fused.slice.first = 0;
      fused.slice.interleaved = part.substr(6, 1);
    }
    return fused;
  }
  return std::nullopt;
}

// Foreign tensors by canonical name.
using TensorsByName = std::unordered_map<std::string, const ForeignTensor*>;

Result<TensorsByName> IndexTensors(const ModelConfig& config, const TensorDialect& dialect,
                                   const std::vector<ForeignTensor>& foreign,
                                   const std::vector<std::unique_ptr<ByteSource>>& files) {
  TensorsByName by_name;
  const ForeignTensor* tied_head = nullptr;
  for (const ForeignTensor& tensor : foreign) {
    const std::string where = files[tensor.file_index]->name() + ": tensor " + Quoted(tensor.name);
    const std::optional<std::string> name = dialect.CanonicalName(tensor.name);
    if (!name.has_value()) {
      if (dialect.IsIgnored(tensor.name)) continue;
      return Status(ErrorCode::kUnsupported,
                    fmt::format("{} is none of architecture {}", where, config.architecture));
    }
    if (config.tie_embeddings && *name == "head.weight") {
      tied_head = &tensor;
      continue;
    }
    if (!by_name.try_emplace(*name, &tensor).second) {
      return Status(ErrorCode::kCorrupt, where + " is there twice");
    }
  }
  // A tied checkpoint may store the embedding a second time, as the head, or only there.
  if (tied_head != nullptr) by_name.try_emplace("embed.weight", tied_head);
  return by_name;
}

}  // namespace

Result<std::vector<SourceTensor>> MatchTensors(
    const ModelConfig& config, const TensorDialect& dialect,
    const std::vector<ForeignTensor>& foreign,
    const std::vector<std::unique_ptr<ByteSource>>& files) {
  const std::string everywhere =
      files.front()->name() +
      (files.size() == 1 ? "" : fmt::format(" and the {} files with it", files.size() - 1));
  // Before the description, whose size is the configuration's word and not the file's.
  if (foreign.size() / kMinTensorsPerLayer < static_cast<uint64_t>(config.num_layers)) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{}: {} tensors cannot be the {} layers of the configuration",
                              everywhere, foreign.size(), config.num_layers));
  }
  Result<ModelDescription> model = DescribeModel(config);
  if (!model.ok()) return model.status();
  Result<TensorsByName> by_name = IndexTensors(config, dialect, foreign, files);
  if (!by_name.ok()) return by_name.status();
  std::set<std::string> unused;
  for (const auto& [name, tensor] : *by_name) unused.insert(name);
  std::vector<SourceTensor> tensors;
  for (const TensorRequirement& wanted : RequiredTensors(*model)) {
    Slice slice;
    slice.total = wanted.kind == TensorKind::kVector ? wanted.cols : wanted.rows;
    if (wanted.name == model->position_tensor) {
      slice.first = dialect.rows_before_positions;
      slice.total += slice.first;
    }
    auto found = by_name->find(wanted.name);
    if (found == by_name->end()) {
      std::optional<FusedTensor> fused = FusedTensorOf(config, dialect, wanted.name);
      if (fused) found = by_name->find(fused->name);
      if (fused) slice = fused->slice;
    }
    if (found == by_name->end()) {
      return Status(ErrorCode::kCorrupt, fmt::format("{}: tensor {} is missing", everywhere,
                                                     Quoted(dialect.ForeignName(wanted.name))));
    }
    const ForeignTensor& tensor = *found->second;
    Result<SourceTensor> matched = MakeSourceTensor(config, tensor, wanted, slice);
    if (!matched.ok()) {
      return matched.status().WithContext(files[tensor.file_index]->name() + ": tensor " +
                                          Quoted(tensor.name));
    }
    if (dialect.norms_lack_one && wanted.name.ends_with("norm.weight")) matched->added = 1;
    tensors.push_back(*std::move(matched));
    unused.erase(found->first);
  }
  if (!unused.empty()) {
    const ForeignTensor& tensor = *by_name->find(*unused.begin())->second;
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
