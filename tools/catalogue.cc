#include "tools/catalogue.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "formats/gguf_set.h"
#include "formats/mapped_file.h"
#include "formats/safetensors.h"
#include "formats/sluice_file.h"
#include "loaders/checkpoint.h"
#include "tools/model_cache.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

Json ParsedOrText(std::string_view text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? Json(std::string(text)) : json;
}

Json GroupJson(const SluiceFile& file, const GroupEntry& group) {
  Json json = {{"kind", GroupKindName(group.kind)}};
  if (group.layer != kNoIndex) json["layer"] = group.layer;
  if (group.expert != kNoIndex) json["expert"] = group.expert;
  json["offset_bytes"] = group.offset_bytes;
  json["size_bytes"] = group.size_bytes;
  json["tensors"] = Json::array();
  for (uint32_t i = 0; i < group.tensor_count; ++i) {
    json["tensors"].push_back(std::string(file.tensors()[group.first_tensor + i].name));
  }
  return json;
}

Result<Catalogue> ReadSluice(const std::string& path) {
  Result<std::shared_ptr<const SluiceFile>> opened = SluiceFile::Open(path);
  if (!opened.ok()) return opened.status();
  const SluiceFile& file = **opened;
  Catalogue catalogue;
  uint64_t chunks = 0;
  for (const PieceEntry& piece : file.pieces()) {
    chunks += (piece.size_bytes + kSluiceChunkBytes - 1) / kSluiceChunkBytes;
  }
  Json& facts = catalogue.facts;
  facts = {{"container", "sluice"},
           {"file_bytes", file.source().size_bytes()},
           {"metadata_bytes", file.metadata_size_bytes()},
           {"config", ParsedOrText(file.config_json())},
           {"tokenizer", !file.tokenizer_json().empty()},
           {"chat_template", !file.chat_template().empty()}};
  if (!file.provenance_json().empty()) facts["provenance"] = ParsedOrText(file.provenance_json());
  facts["checksums"] = {
      {"algorithm", "XXH3-64"}, {"chunk_bytes", kSluiceChunkBytes}, {"chunks", chunks}};
  facts["pieces"] = file.pieces().size();
  facts["groups"] = Json::array();
  for (const GroupEntry& group : file.groups()) {
    facts["groups"].push_back(GroupJson(file, group));
  }
  for (TensorId id = 0; id < file.tensors().size(); ++id) {
    const TensorEntry& tensor = file.tensors()[id];
    catalogue.tensors.push_back({std::string(tensor.name),
                                 WeightTypeName(tensor.layout.type),
                                 {tensor.layout.rows, tensor.layout.cols},
                                 tensor.layout.size_bytes,
                                 file.PiecesOf(id)[0].offset_bytes});
  }
  return catalogue;
}

// Whether convert reads it, and what stands in the way.
void AddReadable(const std::string& path, Json* facts) {
  Result<Checkpoint> checkpoint = Checkpoint::Open(path);
  (*facts)["convertible"] = checkpoint.ok();
  if (!checkpoint.ok()) {
    (*facts)["reason"] = checkpoint.status().message();
    return;
  }
  (*facts)["config"] = ParsedOrText(checkpoint->config().ToJson());
  (*facts)["tokenizer"] = !checkpoint->tokenizer_json().empty();
  (*facts)["chat_template"] = !checkpoint->chat_template().empty();
}

// A shard shows its whole set, or only itself where others are missing.
Result<Catalogue> ReadGguf(const std::string& path, std::unique_ptr<ByteSource> source) {
  Result<GgufFile> file = GgufFile::Read(*source);
  if (!file.ok()) return file.status();
  uint64_t file_bytes = source->size_bytes();
  Result<GgufSet> set = OpenGgufSet(std::move(source));
  Catalogue catalogue;
  catalogue.facts = {{"container", "gguf"}, {"version", file->version()}};
  if (set.ok() && set->files.size() > 1) {
    file = std::move(set->header);
    file_bytes = 0;
    for (const std::unique_ptr<ByteSource>& shard : set->files) file_bytes += shard->size_bytes();
    catalogue.facts["shards"] = set->files.size();
  }
  catalogue.facts["file_bytes"] = file_bytes;
  for (const char* key : {"general.architecture", "general.name"}) {
    if (Result<std::string> value = file->GetString(key); value.ok()) {
      catalogue.facts[key] = *value;
    }
  }
  AddReadable(path, &catalogue.facts);
  for (const GgufTensor& tensor : file->tensors()) {
    catalogue.tensors.push_back(
        {tensor.name, tensor.type->name, tensor.shape, tensor.size_bytes, tensor.offset_bytes});
  }
  return catalogue;
}

Result<Catalogue> ReadSafetensors(const ReadOnlyFile& source) {
  Result<SafetensorsHeader> header = ReadSafetensorsHeader(source);
  if (!header.ok()) return header.status();
  Catalogue catalogue;
  catalogue.facts = {{"container", "safetensors"}, {"file_bytes", source.size_bytes()}};
  if (!header->metadata.empty()) catalogue.facts["metadata"] = header->metadata;
  for (const SafetensorsTensor& tensor : header->tensors) {
    catalogue.tensors.push_back({tensor.name, DTypeName(tensor.type), tensor.shape,
                                 tensor.size_bytes, tensor.offset_bytes});
  }
  return catalogue;
}

Result<Catalogue> ReadDirectory(const std::string& path) {
  Result<Checkpoint> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  Catalogue catalogue;
  catalogue.facts = {{"container", "hugging face directory"},
                     {"description", checkpoint->description()},
                     {"tensor_bytes", checkpoint->size_bytes()},
                     {"config", ParsedOrText(checkpoint->config().ToJson())},
                     {"tokenizer", !checkpoint->tokenizer_json().empty()},
                     {"chat_template", !checkpoint->chat_template().empty()}};
  for (const SourceTensor& tensor : checkpoint->tensors()) {
    catalogue.tensors.push_back({tensor.name,
                                 SourceTypeName(tensor.type),
                                 {tensor.rows, tensor.cols},
                                 tensor.rows * SourceRowBytes(tensor.type, tensor.cols),
                                 tensor.offset_bytes});
  }
  return catalogue;
}

}  // namespace

Result<Catalogue> ReadCatalogue(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return ReadDirectory(path);
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  Result<bool> is_sluice = IsSluiceFile(path);
  if (!is_sluice.ok()) return is_sluice.status();
  if (*is_sluice) return ReadSluice(path);
  std::string start(std::min<uint64_t>((*file)->size_bytes(), 9), '\0');
  if (Status s = (*file)->ReadAt(0, std::as_writable_bytes(std::span(start))); !s.ok()) return s;
  if (start.rfind("GGUF", 0) == 0) return ReadGguf(path, *std::move(file));
  // A length of eight bytes, then a JSON object.
  if (start.size() == 9 && start[8] == '{') return ReadSafetensors(**file);
  return Status(ErrorCode::kCorrupt,
                path + " is neither a .sluice file, nor GGUF, nor safetensors");
}

}  // namespace sluice
