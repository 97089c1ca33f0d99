#include "loaders/gguf_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <span>
#include <utility>

#include "formats/quote.h"

namespace sluice {
namespace {

// Reads the keys of an architecture ("llama.block_count"), with defaults, and remembers the first
// error.
class KeyReader {
 public:
  KeyReader(const GgufFile& file, const std::string& architecture)
      : file_(file), prefix_(architecture + ".") {}

  std::string Name(const char* key) const { return prefix_ + key; }
  bool Has(const char* key) const { return file_.Has(Name(key)); }

  int64_t Required(const char* key) { return ToSize(Name(key), file_.GetUint(Name(key))); }

  int64_t Size(const char* key, int64_t fallback) { return Has(key) ? Required(key) : fallback; }

  double RequiredFloat(const char* key) {
    Result<double> value = file_.GetFloat(Name(key));
    if (!value.ok()) return Fail(value.status()), 0;
    return *value;
  }

  double Float(const char* key, double fallback) {
    return Has(key) ? RequiredFloat(key) : fallback;
  }

  bool Bool(const char* key, bool fallback) {
    if (!Has(key)) return fallback;
    Result<bool> value = file_.GetBool(Name(key));
    if (!value.ok()) return Fail(value.status()), fallback;
    return *value;
  }

  std::string String(const char* key, const char* fallback) {
    if (!Has(key)) return fallback;
    Result<std::string> value = file_.GetString(Name(key));
    if (!value.ok()) return Fail(value.status()), fallback;
    return *value;
  }

  // A number for the whole model, or an array with one for each layer, which must agree.
  int64_t PerLayer(const char* short_key) {
    const std::string key = Name(short_key);
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end() || found->second.type != GgufValueType::kArray) {
      return Required(short_key);
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
  int64_t ToSize(const std::string& key, const Result<uint64_t>& value) {
    if (!value.ok()) return Fail(value.status()), 0;
    if (*value > INT64_MAX) {
      return Fail(Status(ErrorCode::kCorrupt, fmt::format("{} is {}", key, *value))), 0;
    }
    return static_cast<int64_t>(*value);
  }

  const GgufFile& file_;
  std::string prefix_;
  Status status_;
};

double YarnAttentionFactor(KeyReader* keys, double factor) {
  const auto mscale = [factor](double multiplier) {
    return factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(factor) + 1.0;
  };
  const double log_multiplier = keys->Float("rope.scaling.yarn_log_multiplier", 0);
  const double by_formula = mscale(1) / (log_multiplier != 0 ? mscale(log_multiplier) : 1.0);
  return keys->Float("rope.scaling.yarn_attn_factor", by_formula) *
         keys->Float("rope.scaling.attn_factor", 1.0);
}

void ReadRope(KeyReader* keys, bool whole_heads, ModelConfig* config) {
  RopeConfig& rope = config->rope;
  rope.theta = keys->Float("rope.freq_base", 10000.0);
  rope.dim = keys->Size("rope.dimension_count", config->head_dim);
  if (rope.dim != config->head_dim && whole_heads) {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      fmt::format("{} is {}, the heads have {}", keys->Name("rope.dimension_count"),
                                  rope.dim, config->head_dim)));
  }
  const double factor = keys->Float("rope.scaling.factor", keys->Float("rope.scale_linear", 0));
  const std::string type = keys->String("rope.scaling.type", "linear");
  const auto original_context = static_cast<double>(
      keys->Size("rope.scaling.original_context_length", config->context_length));
  // The divisors are tensors, and come later.
  if (type == "longrope") {
    rope.original_context = original_context;
    return;
  }
  if (type == "none" || (type == "linear" && (factor == 0 || factor == 1))) return;
  if (type != "linear" && type != "yarn") {
    keys->Fail(Status(
        ErrorCode::kUnsupported,
        fmt::format("RoPE scaling type {} ({})", Quoted(type), keys->Name("rope.scaling.type"))));
    return;
  }
  rope.factor = factor == 0 ? 1.0 : factor;
  rope.type = type == "linear" ? RopeType::kLinear : RopeType::kYarn;
  if (rope.type == RopeType::kLinear) return;
  rope.original_context = original_context;
  rope.beta_fast = keys->Float("rope.scaling.yarn_beta_fast", 32.0);
  rope.beta_slow = keys->Float("rope.scaling.yarn_beta_slow", 1.0);
  rope.attention_factor = YarnAttentionFactor(keys, rope.factor);
  if (keys->Float("rope.scaling.yarn_ext_factor", 1.0) != 1.0) {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      keys->Name("rope.scaling.yarn_ext_factor") + " other than 1"));
  }
}

// A vector with a float32 for each pair that is rotated; empty: it is not there.
Result<std::vector<float>> ReadDivisors(const GgufFile& file,
                                        const std::vector<std::unique_ptr<ByteSource>>& files,
                                        const char* name, const RopeConfig& rope) {
  const GgufTensor* tensor = file.FindTensor(name);
  if (tensor == nullptr) return std::vector<float>();
  if (tensor->type->id != FindGgmlType(0)->id || tensor->shape.size() != 1) {
    return Status(ErrorCode::kCorrupt, fmt::format("tensor '{}' is not a vector of F32", name));
  }
  const auto want = static_cast<uint64_t>(rope.dim) / 2;
  if (tensor->shape[0] != want) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("tensor '{}' has {} values, {} pairs are rotated", name,
                              tensor->shape[0], want));
  }
  std::vector<float> divisors(want);
  Status s = files[tensor->file_index]->ReadAt(tensor->offset_bytes,
                                               std::as_writable_bytes(std::span(divisors)));
  if (!s.ok()) return s;
  return divisors;
}

// Factors of rotations are tensors. REQUIRES: config->Validate() was ok, so rope.dim is bounded.
Status ReadAllDivisors(const GgufFile& file, const std::vector<std::unique_ptr<ByteSource>>& files,
                       KeyReader* keys, RopeConfig* rope) {
  Result<std::vector<float>> all = ReadDivisors(file, files, "rope_freqs.weight", *rope);
  if (!all.ok()) return all.status();
  if (!all->empty() && rope->type != RopeType::kDefault) {
    return {ErrorCode::kUnsupported,
            "tensor 'rope_freqs.weight' together with " + keys->Name("rope.scaling.type")};
  }
  rope->frequency_divisors = *std::move(all);
  for (const auto& [name, divisors] :
       {std::pair{"rope_factors_short.weight", &rope->short_divisors},
        std::pair{"rope_factors_long.weight", &rope->long_divisors}}) {
    Result<std::vector<float>> values = ReadDivisors(file, files, name, *rope);
    if (!values.ok()) return values.status();
    *divisors = *std::move(values);
  }
  // Without the key for the type too: the tensors decide in llama.cpp.
  if (rope->short_divisors.empty() && rope->long_divisors.empty()) {
    if (keys->String("rope.scaling.type", "") != "longrope") return {};
    return {ErrorCode::kCorrupt,
            keys->Name("rope.scaling.type") +
                " is 'longrope', tensor 'rope_factors_long.weight' is missing"};
  }
  if (!rope->frequency_divisors.empty() || rope->type != RopeType::kDefault) {
    return {ErrorCode::kUnsupported, "two kinds of RoPE scaling"};
  }
  rope->type = RopeType::kLongRope;
  rope->attention_factor = keys->Float("rope.scaling.attn_factor", 1.0);
  rope->original_context =
      static_cast<double>(keys->Required("rope.scaling.original_context_length"));
  return keys->status();
}

// Which layers have the window: a period, or an entry for each layer. In a period the last layer of
// each `period` sees all.
void ReadWindows(const GgufFile& file, KeyReader* keys, int64_t default_period,
                 ModelConfig* config) {
  const int64_t window = keys->Size("attention.sliding_window", 0);
  if (window == 0 || !keys->status().ok()) return;
  if (window < 0 || config->num_layers < 1 || config->num_layers > 4096)
    return;  // Validate says so
  const std::string key = keys->Name("attention.sliding_window_pattern");
  const auto layers = static_cast<size_t>(config->num_layers);
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end() && found->second.type == GgufValueType::kArray) {
    const Result<std::vector<int64_t>> windowed = file.GetInts(key);
    if (!windowed.ok()) return keys->Fail(windowed.status());
    if (windowed->size() != layers) {
      return keys->Fail(Status(ErrorCode::kCorrupt, fmt::format("{} has {} values for {} layers",
                                                                key, windowed->size(), layers)));
    }
    for (const int64_t value : *windowed) config->layer_windows.push_back(value != 0 ? window : 0);
    return;
  }
  const int64_t period = keys->Size("attention.sliding_window_pattern", default_period);
  for (size_t layer = 0; layer < layers; ++layer) {
    const bool all = period > 0 && (static_cast<int64_t>(layer) + 1) % period == 0;
    config->layer_windows.push_back(all && period > 1 ? 0 : window);
  }
}

// What GGUF's architectures fix, as llama.cpp has it in its loaders.
struct GgufArchitecture {
  const char* name;  // "general.architecture"
  const char* architecture;
  Activation activation;
  bool rms_norm;
  void (*read)(const GgufFile& file, KeyReader* keys, ModelConfig* config);
};

// Every layer has the window that the file names. (llama.cpp does without it, and differs from the
// model beyond it.)
void ReadPlain(const GgufFile& file, KeyReader* keys, ModelConfig* config) {
  ReadWindows(file, keys, /*default_period=*/0, config);
}

void ScaleEmbedding(ModelConfig* config) {
  config->embedding_scale = std::sqrt(static_cast<double>(config->hidden_size));
}

void ReadGemma(const GgufFile&, KeyReader*, ModelConfig* config) { ScaleEmbedding(config); }

// The 27B models scale queries by another number than the size of a head; their files do not say
// so.
void ReadGemmaAttention(KeyReader* keys, int64_t layers_of_27b, ModelConfig* config) {
  ScaleEmbedding(config);
  config->logit_softcap = keys->Float("final_logit_softcapping", 0);
  if (config->num_layers != layers_of_27b || config->num_heads < 1) return;
  config->attention_scale = 1.0 / std::sqrt(static_cast<double>(config->hidden_size) /
                                            static_cast<double>(config->num_heads));
}

void ReadGemma2(const GgufFile& file, KeyReader* keys, ModelConfig* config) {
  ReadGemmaAttention(keys, /*layers_of_27b=*/46, config);
  config->attention_softcap = keys->Float("attn_logit_softcapping", 0);
  ReadWindows(file, keys, /*default_period=*/2, config);
}

void ReadGemma3(const GgufFile& file, KeyReader* keys, ModelConfig* config) {
  ReadGemmaAttention(keys, /*layers_of_27b=*/62, config);
  ReadWindows(file, keys, /*default_period=*/6, config);
  if (config->layer_windows.empty()) return;
  RopeConfig& local = config->local_rope.emplace();
  local.theta = keys->Float("rope.freq_base_swa", 10000.0);
  local.dim = config->rope.dim;
}

// OLMo 3 has the name of 2, and windows in layers whose rotation is not scaled.
void ReadOlmo2(const GgufFile& file, KeyReader* keys, ModelConfig* config) {
  ReadWindows(file, keys, /*default_period=*/4, config);
  if (config->layer_windows.empty()) return;
  config->architecture = "olmo3";
  RopeConfig& local = config->local_rope.emplace();
  local.theta = keys->Float("rope.freq_base_swa", config->rope.theta);
  local.dim = config->rope.dim;
}

// One layer in four knows no positions; the file does not say so.
void ReadSmolLm3(const GgufFile&, KeyReader*, ModelConfig* config) {
  if (config->num_layers < 1 || config->num_layers > 4096) return;  // Validate says so
  for (int64_t layer = 0; layer < config->num_layers; ++layer) {
    config->rotating_layers.push_back((layer + 1) % 4 != 0);
  }
}

void ReadStableLm(const GgufFile& file, KeyReader*, ModelConfig* config) {
  config->separate_ffn_norm = file.FindTensor("blk.0.ffn_norm.weight") != nullptr;
  config->parallel_blocks = !config->separate_ffn_norm;
}

void ReadGptNeoX(const GgufFile&, KeyReader* keys, ModelConfig* config) {
  config->parallel_blocks = keys->Bool("use_parallel_residual", true);
}

void ReadFalcon(const GgufFile& file, KeyReader*, ModelConfig* config) {
  config->parallel_blocks = true;
  config->separate_ffn_norm = file.FindTensor("blk.0.attn_norm_2.weight") != nullptr;
}

void ReadBloom(const GgufFile&, KeyReader*, ModelConfig* config) {
  config->rope = RopeConfig();
  config->rope.type = RopeType::kNone;
  config->alibi_bias_max = 8;
}

void ReadMpt(const GgufFile&, KeyReader* keys, ModelConfig* config) {
  config->rope = RopeConfig();
  config->rope.type = RopeType::kNone;
  config->alibi_bias_max = keys->Float("attention.max_alibi_bias", 0);
  if (keys->Float("attention.clamp_kqv", 0) != 0) {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      keys->Name("attention.clamp_kqv") + " (clipped queries, keys and values)"));
  }
}

void ReadStarcoder(const GgufFile&, KeyReader*, ModelConfig* config) {
  config->rope = RopeConfig();
  config->rope.type = RopeType::kNone;
}

constexpr GgufArchitecture kArchitectures[] = {
    {"llama", "llama", Activation::kSilu, true, ReadPlain},
    {"qwen2", "qwen2", Activation::kSilu, true, ReadPlain},
    {"qwen3", "qwen3", Activation::kSilu, true, ReadPlain},
    {"phi3", "phi3", Activation::kSilu, true, ReadPlain},
    {"gemma", "gemma", Activation::kGeluTanh, true, ReadGemma},
    {"gemma2", "gemma2", Activation::kGeluTanh, true, ReadGemma2},
    {"gemma3", "gemma3", Activation::kGeluTanh, true, ReadGemma3},
    {"olmo2", "olmo2", Activation::kSilu, true, ReadOlmo2},
    {"seed_oss", "seed_oss", Activation::kSilu, true, ReadPlain},
    {"smollm3", "smollm3", Activation::kSilu, true, ReadSmolLm3},
    {"stablelm", "stablelm", Activation::kSilu, false, ReadStableLm},
    {"gptneox", "gpt_neox", Activation::kGelu, false, ReadGptNeoX},
    {"falcon", "falcon", Activation::kGelu, false, ReadFalcon},
    {"bloom", "bloom", Activation::kGeluTanh, false, ReadBloom},
    {"mpt", "mpt", Activation::kGelu, false, ReadMpt},
    {"starcoder", "gpt_bigcode", Activation::kGeluTanh, false, ReadStarcoder},
    {"starcoder2", "starcoder2", Activation::kGeluTanh, false, ReadPlain},
};

Result<const GgufArchitecture*> FindArchitecture(const GgufFile& file) {
  Result<std::string> name = file.GetString("general.architecture");
  if (!name.ok()) return name.status();
  std::string known;
  for (const GgufArchitecture& architecture : kArchitectures) {
    if (*name == architecture.name) return &architecture;
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return Status(ErrorCode::kUnsupported,
                "architecture " + Quoted(*name) + " is not supported in GGUF; supported: " + known);
}

Status RefuseMixtures(KeyReader* keys) {
  const int64_t experts = keys->Size("expert_count", 0);
  if (!keys->status().ok()) return keys->status();
  if (experts > 0) {
    return {ErrorCode::kUnsupported,
            fmt::format("mixture of experts ({} is {})", keys->Name("expert_count"), experts)};
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
  const int64_t declared = keys->Size("vocab_size", config->vocab_size);
  if (keys->status().ok() && declared != config->vocab_size) {
    return {ErrorCode::kCorrupt, fmt::format("{} is {}, tensor 'token_embd.weight' has {} rows",
                                             keys->Name("vocab_size"), declared, rows)};
  }
  return keys->status();
}

void ReadSizes(const GgufFile& file, bool rms_norm, KeyReader* keys, ModelConfig* config) {
  config->hidden_size = keys->Required("embedding_length");
  config->num_layers = keys->Required("block_count");
  config->num_heads = keys->PerLayer("attention.head_count");
  config->num_kv_heads = keys->Has("attention.head_count_kv")
                             ? keys->PerLayer("attention.head_count_kv")
                             : config->num_heads;
  config->intermediate_size = keys->PerLayer("feed_forward_length");
  config->context_length = keys->Required("context_length");
  config->norm_eps = keys->RequiredFloat(rms_norm ? "attention.layer_norm_rms_epsilon"
                                                  : "attention.layer_norm_epsilon");
  const int64_t derived_dim =
      config->num_heads > 0 ? config->hidden_size / config->num_heads : config->head_dim;
  config->head_dim = keys->Size("attention.key_length", derived_dim);
  if (keys->Size("attention.value_length", config->head_dim) != config->head_dim) {
    keys->Fail(Status(ErrorCode::kUnsupported,
                      keys->Name("attention.value_length") + " differs from the key length"));
  }
  const auto any = [&file](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(),
                       [&file](const char* name) { return file.FindTensor(name) != nullptr; });
  };
  config->attention_bias = any({"blk.0.attn_q.bias", "blk.0.attn_qkv.bias"});
  config->attention_output_bias = any({"blk.0.attn_output.bias"});
  config->mlp_bias = any({"blk.0.ffn_gate.bias", "blk.0.ffn_up.bias"});
  config->tie_embeddings = !any({"output.weight"});
}

}  // namespace

Result<ModelConfig> ModelConfigFromGguf(const GgufFile& file,
                                        const std::vector<std::unique_ptr<ByteSource>>& files) {
  Result<const GgufArchitecture*> architecture = FindArchitecture(file);
  if (!architecture.ok()) return architecture.status();
  KeyReader keys(file, (*architecture)->name);
  if (Status s = RefuseMixtures(&keys); !s.ok()) return s;
  ModelConfig config;
  config.architecture = (*architecture)->architecture;
  config.activation = (*architecture)->activation;
  if (Status s = ReadVocabulary(file, &keys, &config); !s.ok()) return s;
  ReadSizes(file, (*architecture)->rms_norm, &keys, &config);
  ReadRope(&keys, /*whole_heads=*/config.architecture == "llama", &config);
  (*architecture)->read(file, &keys, &config);
  if (!keys.status().ok()) return keys.status();
  if (file.Has("general.name")) {
    Result<std::string> name = file.GetString("general.name");
    if (!name.ok()) return name.status();
    config.name = *std::move(name);
  }
  if (Status s = config.Validate(); !s.ok()) return s.WithContext("metadata");
  // After Validate: rope.dim bounds the allocation.
  if (Status s = ReadAllDivisors(file, files, &keys, &config.rope); !s.ok()) return s;
  if (Status s = config.Validate(); !s.ok()) return s.WithContext("metadata");
  return config;
}

}  // namespace sluice
