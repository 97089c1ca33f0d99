#include "loaders/checkpoint_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "formats/mapped_file.h"
#include "loaders/other_layouts.h"
#include "loaders/tokenizer/gguf_fields.h"
#include "loaders/tokenizer/tokenizer.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxTokenizerBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

Result<std::string> ToJson(const Result<Tokenizer>& tokenizer, int64_t vocab_size) {
  if (!tokenizer.ok()) return tokenizer.status().WithContext("tokenizer");
  if (tokenizer->vocab_size() > vocab_size) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("tokenizer: {} tokens, but the embedding has {} rows",
                              tokenizer->vocab_size(), vocab_size));
  }
  return tokenizer->ToJson();
}

Result<std::string> ReadTokenizer(const std::string& path) {
  Result<std::string> text = ReadWholeFile(path, kMaxTokenizerBytes);
  if (!text.ok()) return text;
  const MemoryBytes bytes(std::as_bytes(std::span<const char>(*text)), path);
  // kCorrupt: the file is there, and no other may stand in for it.
  if (Status s = RefuseGitLfsPointer(bytes); !s.ok())
    return Status(ErrorCode::kCorrupt, s.message());
  return text;
}

// Empty when there is no such file.
Status ReadOptional(const std::string& path, std::string* text) {
  Result<std::string> read = ReadWholeFile(path, kMaxConfigBytes);
  if (read.status().code() == ErrorCode::kNotFound) return {};
  if (!read.ok()) return read.status();
  *text = *std::move(read);
  return {};
}

}  // namespace

Result<std::string> TokenizerJsonOfGguf(const GgufFile& gguf, int64_t vocab_size,
                                        uint64_t max_memory_bytes) {
  Result<GgufTokenizerFields> fields = TokenizerFieldsOfGguf(gguf);
  if (!fields.ok()) return fields.status();
  fields->max_memory_bytes = max_memory_bytes;
  return ToJson(Tokenizer::FromGguf(*fields), vocab_size);
}

Result<std::string> TokenizerJsonOfHuggingFace(const std::string& directory, int64_t vocab_size,
                                               uint64_t max_memory_bytes) {
  std::string path = directory + "/tokenizer.json";
  Result<std::string> tokenizer = ReadTokenizer(path);
  const bool sentencepiece = tokenizer.status().code() == ErrorCode::kNotFound;
  if (sentencepiece) {
    Result<std::string> model = ReadTokenizer(directory + "/tokenizer.model");
    if (model.ok()) path = directory + "/tokenizer.model";
    if (model.ok() || model.status().code() != ErrorCode::kNotFound) tokenizer = std::move(model);
  }
  if (tokenizer.status().code() == ErrorCode::kNotFound) {
    return Status(ErrorCode::kNotFound,
                  directory +
                      ": neither tokenizer.json nor tokenizer.model is there; where there "
                      "are others, AutoTokenizer.from_pretrained and save_pretrained of "
                      "transformers make tokenizer.json of them");
  }
  if (!tokenizer.ok()) return tokenizer.status();
  std::string tokenizer_config, special_tokens, generation_config, config, added_tokens;
  for (const auto& [name, text] :
       {std::pair("/tokenizer_config.json", &tokenizer_config),
        std::pair("/special_tokens_map.json", &special_tokens),
        std::pair("/generation_config.json", &generation_config),
        std::pair("/config.json", &config), std::pair("/added_tokens.json", &added_tokens)}) {
    if (Status s = ReadOptional(directory + name, text); !s.ok()) return s;
  }
  HuggingFaceTokenizerFiles files;
  (sentencepiece ? files.sentencepiece_model : files.tokenizer_json) = *tokenizer;
  files.tokenizer_config_json = tokenizer_config;
  files.special_tokens_map_json = special_tokens;
  files.generation_config_json = generation_config;
  files.config_json = config;
  files.added_tokens_json = added_tokens;
  files.most_tokens = vocab_size;
  const uint64_t held_bytes = tokenizer->size() + tokenizer_config.size() + special_tokens.size() +
                              generation_config.size() + config.size() + added_tokens.size();
  files.max_memory_bytes = max_memory_bytes - std::min(max_memory_bytes, held_bytes);
  Result<std::string> json = ToJson(Tokenizer::FromHuggingFace(files), vocab_size);
  if (!json.ok()) return json.status().WithContext(path);
  return json;
}

}  // namespace sluice
