#include "loaders/gguf_config.h"

#include <fmt/format.h>

#include <cmath>
#include <span>

#include "formats/quote.h"

namespace sluice {
namespace {

// Reads keys with defaults and remembers the first error.
class KeyReader {
 public:
  explicit KeyReader(const GgufFile& file) : file_(file) {}

  int64_t Required(const char* key) { return ToSize(key, file_.GetUint(key)); }

  int64_t Size(const char* key, int64_t fallback) {
    return file_.Has(key) ? Required(key) : fallback;
  }

  double RequiredFloat(const char* key) {
    Result<double> value = file_.GetFloat(key);
    if (!value.ok()) return Fail(value.status()), 0;
    return *value;
  }

  double Float(const char* key, double fallback) {
    return file_.Has(key) ? RequiredFloat(key) : fallback;
  }

  std::string String(const char* key, const char* fallback) {
    if (!file_.Has(key)) return fallback;
    Result<std::string> value = file_.GetString(key);
    if (!value.ok()) return Fail(value.status()), fallback;
    return *value;
  }

  // A number for the whole model, or an array with one for each layer, which must agree.
  int64_t PerLayer(const char* key) {
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end() || found->second.type != GgufValueType::kArray) {
      return Required(key);
    }
    Result<std::vector<int64_t>> values = file_.GetInts(key);
    if (!values.ok()) return Fail(values.status()), 0;
    for (const int64_t value : *values) {
      if (value == values->front()) continue;
      Fail(Status(ErrorCode::kUnsupported, fmt::format("{} differs from layer to layer ({} and {})",
                                                       key, values->front(), value)));
    }
    return values->empty() ? 0 : values->front();
  }

  void Fail(Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const Status& status() const { return status_; }

 private:
  int64_t ToSize(const char* key, const Result<uint64_t>& value) {
    if (!value.ok()) return Fail(value.status()), 0;
    if (*value > INT64_MAX) {
      return Fail(Status(ErrorCode::kCorrupt, fmt::format("{} is {}", key, *value))), 0;
    }
    return static_cast<int64_t>(*value);
  }

  const GgufFile& file_;
  Status status_;
};

double YarnAttentionFactor(KeyReader* keys, double factor) {
  const auto mscale = [factor](double multiplier) {
    return factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(factor) + 1.0;
  };
  const double log_multiplier = keys->Float("llama.rope.scaling.yarn_log_multiplier", 0);
  const double by_formula = mscale(1) / (log_multiplier != 0 ? mscale(log_multiplier) : 1.0);
  return keys->Float("llama.rope.scaling.yarn_attn_factor", by_formula) *
         keys->Float("llama.rope.scaling.attn_factor", 1.0);
}

void ReadRope(KeyReader* keys, ModelConfig* config) {
  RopeConfig& rope = config->rope;
  rope.theta = keys->Float("llama.rope.freq_base", 10000.0);
  rope.dim = keys->Size("llama.rope.dimension_count", config->head_dim);
  if (rope.dim != config->head_dim) {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      fmt::format("llama.rope.dimension_count is {}, the heads have {}", rope.dim,
                                  config->head_dim)));
  }
  const double factor =
      keys->Float("llama.rope.scaling.factor", keys->Float("llama.rope.scale_linear", 0));
  const std::string type = keys->String("llama.rope.scaling.type", "linear");
  if (type == "none" || (type == "linear" && (factor == 0 || factor == 1))) return;
  if (type != "linear" && type != "yarn") {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      "RoPE scaling type " + Quoted(type) + " (llama.rope.scaling.type)"));
    return;
  }
  rope.factor = factor == 0 ? 1.0 : factor;
  rope.type = type == "linear" ? RopeType::kLinear : RopeType::kYarn;
  if (rope.type == RopeType::kLinear) return;
  rope.original_context = static_cast<double>(
      keys->Size("llama.rope.scaling.original_context_length", config->context_length));
  rope.beta_fast = keys->Float("llama.rope.scaling.yarn_beta_fast", 32.0);
  rope.beta_slow = keys->Float("llama.rope.scaling.yarn_beta_slow", 1.0);
  rope.attention_factor = YarnAttentionFactor(keys, rope.factor);
  if (keys->Float("llama.rope.scaling.yarn_ext_factor", 1.0) != 1.0) {
    keys->Fail(Status(ErrorCode::kUnsupported, "llama.rope.scaling.yarn_ext_factor other than 1"));
  }
}

Status ReadFrequencyDivisors(const GgufFile& file,
                             const std::vector<std::unique_ptr<ByteSource>>& files,
                             RopeConfig* rope) {
  const GgufTensor* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  if (tensor->type->id != FindGgmlType(0)->id || tensor->shape.size() != 1) {
    return {ErrorCode::kCorrupt, "tensor 'rope_freqs.weight' is not a vector of F32"};
  }
  if (rope->type != RopeType::kDefault) {
    return {ErrorCode::kUnsupported,
            "tensor 'rope_freqs.weight' together with llama.rope.scaling.type"};
  }
  const auto want = static_cast<uint64_t>(rope->dim) / 2;
  if (tensor->shape[0] != want) {
    return {ErrorCode::kCorrupt,
            fmt::format("tensor 'rope_freqs.weight' has {} values, {} pairs are rotated",
                        tensor->shape[0], want)};
  }
  rope->frequency_divisors.resize(want);
  return files[tensor->file_index]->ReadAt(
      tensor->offset_bytes, std::as_writable_bytes(std::span(rope->frequency_divisors)));
}

Status RefuseOtherModels(const GgufFile& file) {
  Result<std::string> architecture = file.GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  if (*architecture != "llama") {
    return {ErrorCode::kUnsupported, "architecture " + Quoted(*architecture) +
                                         " is not supported in GGUF; supported: llama"};
  }
  KeyReader keys(file);
  const int64_t experts = keys.Size("llama.expert_count", 0);
  if (!keys.status().ok()) return keys.status();
  if (experts > 0) {
    return {ErrorCode::kUnsupported,
            fmt::format("mixture of experts (llama.expert_count is {})", experts)};
  }
  return {};
}

// The embedding's rows are the vocabulary; the key and the list of tokens must agree.
Status ReadVocabulary(const GgufFile& file, KeyReader* keys, ModelConfig* config) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return {ErrorCode::kCorrupt, "tensor 'token_embd.weight' is missing or not a matrix"};
  }
  const uint64_t rows = embedding->shape[0];
  if (rows > INT32_MAX) {
    return {ErrorCode::kCorrupt, fmt::format("tensor 'token_embd.weight' has {} rows", rows)};
  }
  config->vocab_size = static_cast<int64_t>(rows);
  const int64_t declared = keys->Size("llama.vocab_size", config->vocab_size);
  if (keys->status().ok() && declared != config->vocab_size) {
    return {ErrorCode::kCorrupt,
            fmt::format("llama.vocab_size is {}, tensor 'token_embd.weight' has {} rows", declared,
                        rows)};
  }
  return keys->status();
}

}  // namespace

Result<ModelConfig> ModelConfigFromGguf(const GgufFile& file,
                                        const std::vector<std::unique_ptr<ByteSource>>& files) {
  if (Status s = RefuseOtherModels(file); !s.ok()) return s;
  KeyReader keys(file);
  ModelConfig config;
  config.architecture = "llama";
  config.name = keys.String("general.name", "");
  if (Status s = ReadVocabulary(file, &keys, &config); !s.ok()) return s;
  config.hidden_size = keys.Required("llama.embedding_length");
  config.num_layers = keys.Required("llama.block_count");
  config.num_heads = keys.PerLayer("llama.attention.head_count");
  config.num_kv_heads = file.Has("llama.attention.head_count_kv")
                            ? keys.PerLayer("llama.attention.head_count_kv")
                            : config.num_heads;
  config.intermediate_size = keys.PerLayer("llama.feed_forward_length");
  config.context_length = keys.Required("llama.context_length");
  config.norm_eps = keys.RequiredFloat("llama.attention.layer_norm_rms_epsilon");
  const int64_t derived_dim =
      config.num_heads > 0 ? config.hidden_size / config.num_heads : config.head_dim;
  config.head_dim = keys.Size("llama.attention.key_length", derived_dim);
  if (keys.Size("llama.attention.value_length", config.head_dim) != config.head_dim) {
    keys.Fail(Status(ErrorCode::kUnsupported,
                     "llama.attention.value_length differs from the key length"));
  }
  if (keys.Size("llama.attention.sliding_window", 0) != 0) {
    keys.Fail(Status(ErrorCode::kUnsupported,
                     "sliding window attention (llama.attention.sliding_window)"));
  }
  ReadRope(&keys, &config);
  if (!keys.status().ok()) return keys.status();
  config.attention_bias = file.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.attention_output_bias = file.FindTensor("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.FindTensor("blk.0.ffn_gate.bias") != nullptr;
  config.tie_embeddings = file.FindTensor("output.weight") == nullptr;
  if (Status s = config.Validate(); !s.ok()) return s.WithContext("metadata");
  // After Validate: rope.dim bounds the allocation.
  if (Status s = ReadFrequencyDivisors(file, files, &config.rope); !s.ok()) return s;
  if (Status s = config.Validate(); !s.ok()) return s.WithContext("metadata");
  return config;
}

}  // namespace sluice
