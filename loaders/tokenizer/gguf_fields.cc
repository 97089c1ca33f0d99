#include "loaders/tokenizer/gguf_fields.h"

#include <string>

namespace sluice {
namespace {

Status ReadStrings(const GgufFile& file, std::string_view key, std::vector<std::string_view>* out) {
  Result<const std::vector<std::string>*> strings = file.GetStrings(key);
  if (!strings.ok()) return strings.status();
  out->assign((*strings)->begin(), (*strings)->end());
  return {};
}

Status ReadId(const GgufFile& file, std::string_view key, std::optional<int64_t>* id) {
  if (!file.Has(key)) return {};
  Result<uint64_t> value = file.GetUint(key);
  if (!value.ok()) return value.status();
  // Writers put -1 in 32 bits where there is no such token.
  if (*value == UINT32_MAX) return {};
  if (*value > INT32_MAX) return Status(ErrorCode::kCorrupt, std::string(key));
  *id = static_cast<int64_t>(*value);
  return {};
}

Status ReadFlag(const GgufFile& file, std::string_view key, std::optional<bool>* flag) {
  if (!file.Has(key)) return {};
  Result<bool> value = file.GetBool(key);
  if (!value.ok()) return value.status();
  *flag = *value;
  return {};
}

}  // namespace

Result<GgufTokenizerFields> TokenizerFieldsOfGguf(const GgufFile& file) {
  GgufTokenizerFields fields;
  Result<std::string> model = file.GetString("tokenizer.ggml.model");
  if (!model.ok()) return model.status();
  fields.model = *std::move(model);
  if (file.Has("tokenizer.ggml.pre")) {
    Result<std::string> pre = file.GetString("tokenizer.ggml.pre");
    if (!pre.ok()) return pre.status();
    fields.pre = *std::move(pre);
  }
  if (Status s = ReadStrings(file, "tokenizer.ggml.tokens", &fields.tokens); !s.ok()) return s;
  if (file.Has("tokenizer.ggml.merges")) {
    if (Status s = ReadStrings(file, "tokenizer.ggml.merges", &fields.merges); !s.ok()) return s;
  }
  if (file.Has("tokenizer.ggml.token_type")) {
    Result<std::vector<int64_t>> types = file.GetInts("tokenizer.ggml.token_type");
    if (!types.ok()) return types.status();
    for (const int64_t type : *types) fields.token_types.push_back(static_cast<int32_t>(type));
  }
  if (file.Has("tokenizer.ggml.scores")) {
    Result<std::vector<float>> scores = file.GetFloats("tokenizer.ggml.scores");
    if (!scores.ok()) return scores.status();
    fields.scores = *std::move(scores);
  }
  if (file.Has("tokenizer.ggml.precompiled_charsmap")) {
    Result<std::vector<int64_t>> bytes = file.GetInts("tokenizer.ggml.precompiled_charsmap");
    if (!bytes.ok()) return bytes.status();
    for (const int64_t byte : *bytes) {
      fields.precompiled_charsmap.push_back(static_cast<char>(byte & 0xFF));
    }
  }
  struct Id {
    const char* key;
    std::optional<int64_t>* value;
  };
  for (const Id& id : {Id{"tokenizer.ggml.bos_token_id", &fields.bos_id},
                       Id{"tokenizer.ggml.eos_token_id", &fields.eos_id},
                       Id{"tokenizer.ggml.eot_token_id", &fields.eot_id},
                       Id{"tokenizer.ggml.eom_token_id", &fields.eom_id},
                       Id{"tokenizer.ggml.unknown_token_id", &fields.unknown_id}}) {
    if (Status s = ReadId(file, id.key, id.value); !s.ok()) return s;
  }
  struct Flag {
    const char* key;
    std::optional<bool>* value;
  };
  for (const Flag& flag :
       {Flag{"tokenizer.ggml.add_bos_token", &fields.add_bos},
        Flag{"tokenizer.ggml.add_eos_token", &fields.add_eos},
        Flag{"tokenizer.ggml.add_space_prefix", &fields.add_space_prefix},
        Flag{"tokenizer.ggml.remove_extra_whitespaces", &fields.remove_extra_whitespaces},
        Flag{"tokenizer.ggml.treat_whitespace_as_suffix", &fields.treat_whitespace_as_suffix}}) {
    if (Status s = ReadFlag(file, flag.key, flag.value); !s.ok()) return s;
  }
  return fields;
}

}  // namespace sluice
