// GGUF files as checkpoints.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/gguf_set.h"
#include "loaders/checkpoint_source.h"
#include "loaders/checkpoint_template.h"
#include "loaders/checkpoint_tokenizer.h"
#include "loaders/gguf_config.h"
#include "loaders/tensor_names.h"

namespace sluice {
namespace {

// llama.cpp's converter stores the rows of each head of Q and K so that the two values that rotate
// together are neighbours: row 2j + half of a head holds row half * dim/2 + j. This is the way
// back: where each canonical row lies.
std::vector<uint32_t> InterleavedRowOrder(uint64_t rows, uint64_t head_dim) {
  std::vector<uint32_t> order(rows);
  const uint64_t half_dim = head_dim / 2;
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t in_head = row % head_dim;
    order[row] =
        static_cast<uint32_t>(row - in_head + 2 * (in_head % half_dim) + in_head / half_dim);
  }
  return order;
}

Status RestoreRotationOrder(const ModelConfig& config, SourceTensor* tensor) {
  const bool is_weight =
      tensor->name.ends_with(".attn.q.weight") || tensor->name.ends_with(".attn.k.weight");
  const bool is_bias =
      tensor->name.ends_with(".attn.q.bias") || tensor->name.ends_with(".attn.k.bias");
  if (!is_weight && !is_bias) return {};
  const bool is_block = SourceBlockValues(tensor->type) > 1;
  if (is_bias && is_block) {
    return {ErrorCode::kUnsupported, fmt::format("tensor '{}': a bias of type {}",
                                                 tensor->file_name, SourceTypeName(tensor->type))};
  }
  tensor->row_order = InterleavedRowOrder(is_bias ? tensor->cols : tensor->rows,
                                          static_cast<uint64_t>(config.head_dim));
  return {};
}

std::vector<ForeignTensor> ForeignTensorsOf(const GgufFile& gguf) {
  std::vector<ForeignTensor> tensors;
  tensors.reserve(gguf.tensors().size());
  for (const GgufTensor& tensor : gguf.tensors()) {
    ForeignTensor& out = tensors.emplace_back();
    out.name = tensor.name;
    out.shape = tensor.shape;
    out.type_name = tensor.type->name;
    out.offset_bytes = tensor.offset_bytes;
    out.size_bytes = tensor.size_bytes;
    out.file_index = tensor.file_index;
  }
  return tensors;
}

}  // namespace

Result<CheckpointSource> OpenGguf(std::unique_ptr<ByteSource> file, uint64_t max_memory_bytes) {
  const std::string path = file->name();
  Result<GgufSet> set = OpenGgufSet(std::move(file), max_memory_bytes);
  if (!set.ok()) return set.status();
  const GgufFile* gguf = &set->header;
  Result<ModelConfig> config = ModelConfigFromGguf(*gguf, set->files);
  if (!config.ok()) return config.status().WithContext(path);

  CheckpointSource source;
  source.config = *std::move(config);
  source.files = std::move(set->files);
  const TensorDialect dialect = GgufDialect(source.config);
  Result<std::vector<SourceTensor>> tensors =
      MatchTensors(source.config, dialect, ForeignTensorsOf(*gguf), source.files);
  if (!tensors.ok()) return tensors.status();
  source.tensors = *std::move(tensors);
  for (SourceTensor& tensor : source.tensors) {
    if (!dialect.pairs_neighbours) break;
    if (Status s = RestoreRotationOrder(source.config, &tensor); !s.ok()) {
      return s.WithContext(path);
    }
  }
  Result<std::string> chat_template = ChatTemplateOfGguf(*gguf);
  if (!chat_template.ok()) return chat_template.status().WithContext(path);
  source.chat_template = *std::move(chat_template);
  const uint64_t free_bytes = max_memory_bytes - std::min(max_memory_bytes, gguf->memory_bytes());
  Result<std::string> tokenizer = TokenizerJsonOfGguf(*gguf, source.config.vocab_size, free_bytes);
  if (!tokenizer.ok()) return tokenizer.status().WithContext(path);
  source.tokenizer_json = *std::move(tokenizer);
  source.description =
      fmt::format("GGUF v{}, {}{} ({})", gguf->version(), LastPathComponent(path),
                  source.files.size() == 1 ? "" : fmt::format(" of {} shards", source.files.size()),
                  SummarizeTypes(source.tensors));
  return source;
}

}  // namespace sluice
