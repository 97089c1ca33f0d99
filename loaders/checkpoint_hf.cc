// Hugging Face directories as checkpoints: config.json, safetensors, tokenizer, chat template.
#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <set>
#include <utility>

#include "formats/quote.h"
#include "formats/safetensors.h"
#include "loaders/checkpoint_source.h"
#include "loaders/checkpoint_template.h"
#include "loaders/checkpoint_tokenizer.h"
#include "loaders/hf_config.h"
#include "loaders/other_layouts.h"
#include "loaders/tensor_names.h"
#include "loaders/tied_head.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;
constexpr uint64_t kMaxIndexBytes = uint64_t{100} << 20;

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// Opens one file of weights and appends what it holds.
Status AddSafetensors(const std::string& path, std::vector<ForeignTensor>* tensors,
                      std::vector<std::unique_ptr<ByteSource>>* files) {
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  if (Status s = RefuseGitLfsPointer(**file); !s.ok()) return s;
  Result<SafetensorsHeader> header = ReadSafetensorsHeader(**file);
  if (!header.ok()) return header.status();
  for (SafetensorsTensor& tensor : header->tensors) {
    ForeignTensor& out = tensors->emplace_back();
    out.name = std::move(tensor.name);
    out.shape = std::move(tensor.shape);
    out.type_name = DTypeName(tensor.type);
    out.offset_bytes = tensor.offset_bytes;
    out.size_bytes = tensor.size_bytes;
    out.file_index = static_cast<uint32_t>(files->size());
  }
  files->push_back(*std::move(file));
  return {};
}

// Every file that the index names, and a check that each tensor is where the index says.
Status AddShards(const std::string& directory, const std::string& index_path,
                 std::vector<ForeignTensor>* tensors,
                 std::vector<std::unique_ptr<ByteSource>>* files) {
  Result<std::string> text = ReadWholeFile(index_path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  Result<std::map<std::string, std::string>> index = ParseSafetensorsIndex(*text);
  if (!index.ok()) return index.status().WithContext(index_path);
  std::set<std::string> names;
  for (const auto& [tensor, file] : *index) names.insert(file);
  for (const std::string& name : names) {
    const size_t first = tensors->size();
    if (Status s = AddSafetensors(directory + "/" + name, tensors, files); !s.ok()) return s;
    for (size_t i = first; i < tensors->size(); ++i) {
      const auto entry = index->find((*tensors)[i].name);
      if (entry != index->end() && entry->second == name) index->erase(entry);
    }
  }
  if (index->empty()) return {};
  return {ErrorCode::kCorrupt,
          fmt::format("{}: tensor {} is not in {}", index_path, Quoted(index->begin()->first),
                      Quoted(index->begin()->second))};
}

Status AddWeights(const std::string& directory, std::vector<ForeignTensor>* tensors,
                  std::vector<std::unique_ptr<ByteSource>>* files) {
  const std::string single = directory + "/model.safetensors";
  const std::string index = directory + "/model.safetensors.index.json";
  if (Exists(single)) return AddSafetensors(single, tensors, files);
  if (Exists(index)) return AddShards(directory, index, tensors, files);
  return NoWeights(directory);
}

}  // namespace

Result<CheckpointSource> OpenHuggingFaceDirectory(const std::string& path,
                                                  uint64_t max_memory_bytes) {
  const std::string config_path = path + "/config.json";
  Result<std::string> config_text = ReadWholeFile(config_path, kMaxConfigBytes);
  if (config_text.status().code() == ErrorCode::kNotFound) return NoConfiguration(path);
  if (!config_text.ok()) return config_text.status();
  Result<ModelConfig> config = ModelConfigFromHuggingFace(*config_text);
  if (!config.ok()) return config.status().WithContext(config_path);

  CheckpointSource source;
  source.config = *std::move(config);
  source.config.name = LastPathComponent(path);
  std::vector<ForeignTensor> foreign;
  if (Status s = AddWeights(path, &foreign, &source.files); !s.ok()) return s;
  const TensorDialect dialect = HuggingFaceDialect(source.config);
  if (source.config.tie_embeddings) {
    Result<bool> another = HeadIsAnother(dialect, foreign, source.files);
    if (!another.ok()) return another.status();
    source.config.tie_embeddings = !*another;
  }
  Result<std::vector<SourceTensor>> tensors =
      MatchTensors(source.config, dialect, foreign, source.files);
  if (!tensors.ok()) return tensors.status();
  source.tensors = *std::move(tensors);
  Result<std::string> chat_template = ChatTemplateOfHuggingFace(path);
  if (!chat_template.ok()) return chat_template.status();
  source.chat_template = *std::move(chat_template);
  Result<std::string> tokenizer =
      TokenizerJsonOfHuggingFace(path, source.config.vocab_size, max_memory_bytes);
  if (!tokenizer.ok()) return tokenizer.status();
  source.tokenizer_json = *std::move(tokenizer);
  source.description =
      fmt::format("Hugging Face, {} ({})", LastPathComponent(path), SummarizeTypes(source.tensors));
  return source;
}

}  // namespace sluice
