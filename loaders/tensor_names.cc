#include "loaders/tensor_names.h"

namespace sluice {
namespace {

// Hugging Face.
constexpr NamePair kModel[] = {{"embed_tokens", "embed"}, {"norm", "norm"}, {"lm_head", "head"}};
constexpr NamePair kAttention[] = {
    {"self_attn.q_proj", "attn.q"},      {"self_attn.k_proj", "attn.k"},
    {"self_attn.v_proj", "attn.v"},      {"self_attn.o_proj", "attn.o"},
    {"self_attn.q_norm", "attn.q_norm"}, {"self_attn.k_norm", "attn.k_norm"},
    {"self_attn.qkv_proj", "attn.qkv"},
};
constexpr NamePair kMlp[] = {{"mlp.gate_proj", "ffn.gate"},
                             {"mlp.up_proj", "ffn.up"},
                             {"mlp.down_proj", "ffn.down"},
                             {"mlp.gate_up_proj", "ffn.gate_up"}};
constexpr NamePair kInputNorms[] = {{"input_layernorm", "attn_norm"},
                                    {"post_attention_layernorm", "ffn_norm"}};
constexpr NamePair kAllNorms[] = {{"input_layernorm", "attn_norm"},
                                  {"post_attention_layernorm", "attn_post_norm"},
                                  {"pre_feedforward_layernorm", "ffn_norm"},
                                  {"post_feedforward_layernorm", "ffn_post_norm"}};
constexpr NamePair kStarcoder2Mlp[] = {{"mlp.c_fc", "ffn.up"}, {"mlp.c_proj", "ffn.down"}};

constexpr NamePair kGptModel[] = {
    {"wte", "embed"}, {"wpe", "positions"}, {"ln_f", "norm"}, {"lm_head", "head"}};
constexpr NamePair kGptLayer[] = {{"ln_1", "attn_norm"},     {"attn.c_attn", "attn.qkv"},
                                  {"attn.c_proj", "attn.o"}, {"ln_2", "ffn_norm"},
                                  {"mlp.c_fc", "ffn.up"},    {"mlp.c_proj", "ffn.down"}};

constexpr NamePair kFalconModel[] = {
    {"word_embeddings", "embed"}, {"ln_f", "norm"}, {"lm_head", "head"}};
constexpr NamePair kBloomModel[] = {{"word_embeddings", "embed"},
                                    {"word_embeddings_layernorm", "layers.0.embed_norm"},
                                    {"ln_f", "norm"},
                                    {"lm_head", "head"}};
// The two norms of a layer have other names in models with parallel blocks.
constexpr NamePair kFalconLayer[] = {
    {"input_layernorm", "attn_norm"},
    {"ln_attn", "attn_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"ln_mlp", "ffn_norm"},
    {"self_attention.query_key_value", "attn.qkv"},
    {"self_attention.dense", "attn.o"},
    {"mlp.dense_h_to_4h", "ffn.up"},
    {"mlp.dense_4h_to_h", "ffn.down"},
};

constexpr NamePair kMptModel[] = {{"wte", "embed"}, {"norm_f", "norm"}, {"lm_head", "head"}};
constexpr NamePair kMptLayer[] = {{"norm_1", "attn_norm"},     {"attn.Wqkv", "attn.qkv"},
                                  {"attn.out_proj", "attn.o"}, {"norm_2", "ffn_norm"},
                                  {"ffn.up_proj", "ffn.up"},   {"ffn.down_proj", "ffn.down"}};

constexpr NamePair kGptNeoXModel[] = {
    {"embed_in", "embed"}, {"final_layer_norm", "norm"}, {"embed_out", "head"}};
constexpr NamePair kGptNeoXLayer[] = {
    {"input_layernorm", "attn_norm"}, {"attention.query_key_value", "attn.qkv"},
    {"attention.dense", "attn.o"},    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.dense_h_to_4h", "ffn.up"},  {"mlp.dense_4h_to_h", "ffn.down"},
};

constexpr NamePair kOptModel[] = {
    {"embed_tokens", "embed"},      {"embed_positions", "positions"},
    {"final_layer_norm", "norm"},   {"project_in", "layers.0.project_in"},
    {"project_out", "project_out"}, {"lm_head", "head"}};
constexpr NamePair kOptLayer[] = {
    {"self_attn.q_proj", "attn.q"},
    {"self_attn.k_proj", "attn.k"},
    {"self_attn.v_proj", "attn.v"},
    {"self_attn.out_proj", "attn.o"},
    {"self_attn_layer_norm", "attn_norm"},
    {"fc1", "ffn.up"},
    {"fc2", "ffn.down"},
    {"final_layer_norm", "ffn_norm"},
};

// Checkpoints with a part for images keep the language model one level deeper.
constexpr std::string_view kModelPrefixes[] = {"model.", "language_model.model.",
                                               "model.language_model.", "language_model."};
constexpr std::string_view kTransformerPrefix[] = {"transformer."};
constexpr std::string_view kGptNeoXPrefix[] = {"gpt_neox."};
constexpr std::string_view kOptPrefixes[] = {"model.decoder.", "decoder."};
constexpr std::string_view kImageParts[] = {
    "vision_tower.",       "multi_modal_projector.",       "image_newline",
    "model.vision_tower.", "model.multi_modal_projector.", "model.image_newline"};
constexpr std::string_view kHuggingFaceBuffers[] = {".rotary_emb.inv_freq", ".attn.bias",
                                                    ".attn.masked_bias", ".attention.bias",
                                                    ".attention.masked_bias"};

// GGUF.
constexpr NamePair kGgufModel[] = {{"token_embd", "embed"},
                                   {"position_embd", "positions"},
                                   {"token_embd_norm", "layers.0.embed_norm"},
                                   {"output_norm", "norm"},
                                   {"output", "head"}};
constexpr NamePair kGgufAttention[] = {
    {"attn_norm", "attn_norm"},
    {"attn_q", "attn.q"},
    {"attn_k", "attn.k"},
    {"attn_v", "attn.v"},
    {"attn_output", "attn.o"},
    {"attn_q_norm", "attn.q_norm"},
    {"attn_k_norm", "attn.k_norm"},
    {"attn_qkv", "attn.qkv"},
    {"post_attention_norm", "attn_post_norm"},
};
constexpr NamePair kGgufSeedOssNorm[] = {{"post_attention_norm", "ffn_norm"}};
// The two norms of parallel blocks: the second name is the attention's.
constexpr NamePair kGgufTwoNorms[] = {{"attn_norm_2", "attn_norm"},
                                      {"attn_norm", "ffn_norm"},
                                      {"attn_qkv", "attn.qkv"},
                                      {"attn_output", "attn.o"}};
constexpr NamePair kGgufFfn[] = {{"ffn_norm", "ffn_norm"},
                                 {"ffn_gate", "ffn.gate"},
                                 {"ffn_up", "ffn.up"},
                                 {"ffn_down", "ffn.down"},
                                 {"post_ffw_norm", "ffn_post_norm"}};
constexpr NamePair kGgufFusedFfn[] = {
    {"ffn_norm", "ffn_norm"}, {"ffn_up", "ffn.gate_up"}, {"ffn_down", "ffn.down"}};
// Factors of rotations are no leftovers, but go into the configuration.
constexpr std::string_view kGgufIgnoredPrefixes[] = {"rope_freqs.", "rope_factors_"};
constexpr std::string_view kGgufIgnoredSuffixes[] = {".attn_rot_embd.weight", ".attn_rot_embd"};

constexpr std::string_view kCanonicalLayerPrefix = "layers.";
constexpr std::string_view kSuffixes[] = {".weight", ".bias"};

bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// Takes "12." off the front. A leading zero would give one layer two names.
bool TakeLayer(std::string_view* text, std::string_view* digits) {
  const size_t dot = text->find('.');
  if (dot == std::string_view::npos || dot == 0 || dot > 6) return false;
  *digits = text->substr(0, dot);
  if (digits->find_first_not_of("0123456789") != std::string_view::npos) return false;
  if (digits->size() > 1 && digits->front() == '0') return false;
  text->remove_prefix(dot + 1);
  return true;
}

// Takes ".weight" or ".bias" off the end; empty: there is none.
std::string_view TakeSuffix(std::string_view* text) {
  for (const std::string_view suffix : kSuffixes) {
    if (!text->ends_with(suffix)) continue;
    text->remove_suffix(suffix.size());
    return suffix;
  }
  return {};
}

std::string Join(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) text += part;
  return text;
}

std::string_view Find(std::span<const NamePair> pairs, std::string_view NamePair::*from,
                      std::string_view NamePair::*to, std::string_view name) {
  for (const NamePair& pair : pairs) {
    if (pair.*from == name) return pair.*to;
  }
  return {};
}

}  // namespace

std::optional<std::string> TensorDialect::CanonicalName(std::string_view name) const {
  // One prefix may begin another: the longest is meant.
  std::string_view longest;
  for (const std::string_view prefix : prefixes) {
    if (name.starts_with(prefix) && prefix.size() > longest.size()) longest = prefix;
  }
  name.remove_prefix(longest.size());
  std::string_view digits;
  const bool in_layer = TakePrefix(layer_prefix, &name);
  if (in_layer && !TakeLayer(&name, &digits)) return std::nullopt;
  const std::string_view suffix = TakeSuffix(&name);
  if (suffix.empty()) return std::nullopt;
  if (!in_layer) {
    const std::string_view stem = Find(model, &NamePair::foreign, &NamePair::canonical, name);
    if (stem.empty()) return std::nullopt;
    return Join({stem, suffix});
  }
  for (const std::span<const NamePair> pairs : layer) {
    const std::string_view stem = Find(pairs, &NamePair::foreign, &NamePair::canonical, name);
    if (!stem.empty()) return Join({kCanonicalLayerPrefix, digits, ".", stem, suffix});
  }
  return std::nullopt;
}

std::string TensorDialect::ForeignName(std::string_view canonical) const {
  std::string_view name = canonical;
  const std::string_view prefix = prefixes.empty() ? std::string_view() : prefixes.front();
  std::string_view digits;
  const std::string_view suffix = TakeSuffix(&name);
  // Some of the model's own tensors go into its first layer.
  const std::string_view own = Find(model, &NamePair::canonical, &NamePair::foreign, name);
  const bool in_layer =
      own.empty() && TakePrefix(kCanonicalLayerPrefix, &name) && TakeLayer(&name, &digits);
  if (!in_layer) {
    if (own.empty()) return std::string(canonical);
    return Join({name == "head" ? std::string_view() : prefix, own, suffix});
  }
  for (const std::span<const NamePair> pairs : layer) {
    const std::string_view stem = Find(pairs, &NamePair::canonical, &NamePair::foreign, name);
    if (!stem.empty()) return Join({prefix, layer_prefix, digits, ".", stem, suffix});
  }
  return std::string(canonical);
}

bool TensorDialect::IsIgnored(std::string_view foreign) const {
  for (const std::string_view prefix : ignored_prefixes) {
    if (foreign.starts_with(prefix)) return true;
  }
  for (const std::string_view suffix : ignored_suffixes) {
    if (foreign.ends_with(suffix)) return true;
  }
  return false;
}

TensorDialect HuggingFaceDialect(const ModelConfig& config) {
  const std::string& architecture = config.architecture;
  TensorDialect dialect;
  dialect.prefixes = kModelPrefixes;
  dialect.ignored_prefixes = kImageParts;
  dialect.layer_prefix = "layers.";
  dialect.model = kModel;
  dialect.layer = {kAttention, kMlp, kInputNorms};
  dialect.ignored_suffixes = kHuggingFaceBuffers;
  dialect.norms_lack_one = architecture.starts_with("gemma");
  if (architecture == "gemma2" || architecture == "gemma3" || architecture == "olmo2" ||
      architecture == "olmo3") {
    dialect.layer[2] = kAllNorms;
  }
  if (architecture == "starcoder2") {
    dialect.layer[1] = kStarcoder2Mlp;
  } else if (architecture == "opt") {
    dialect.prefixes = kOptPrefixes;
    dialect.model = kOptModel;
    dialect.layer = {kOptLayer};
    dialect.rows_before_positions = 2;
  } else if (architecture == "gpt_neox") {
    dialect.prefixes = kGptNeoXPrefix;
    dialect.interleaves_qkv = true;
    dialect.model = kGptNeoXModel;
    dialect.layer = {kGptNeoXLayer};
  } else if (architecture == "mpt") {
    dialect.prefixes = kTransformerPrefix;
    dialect.layer_prefix = "blocks.";
    dialect.model = kMptModel;
    dialect.layer = {kMptLayer};
  } else if (architecture == "gpt_bigcode" || architecture == "falcon" || architecture == "bloom") {
    dialect.prefixes = kTransformerPrefix;
    dialect.layer_prefix = "h.";
    dialect.interleaves_qkv = true;
    dialect.model = kGptModel;
    dialect.layer = {kGptLayer};
    if (architecture != "gpt_bigcode") {
      dialect.model = kFalconModel;
      dialect.layer = {kFalconLayer};
    }
    if (architecture == "bloom") {
      dialect.model = kBloomModel;
    }
  }
  return dialect;
}

TensorDialect GgufDialect(const ModelConfig& config) {
  TensorDialect dialect;
  dialect.layer_prefix = "blk.";
  dialect.model = kGgufModel;
  dialect.layer = {kGgufAttention, kGgufFfn};
  dialect.ignored_prefixes = kGgufIgnoredPrefixes;
  dialect.ignored_suffixes = kGgufIgnoredSuffixes;
  dialect.pairs_neighbours = config.architecture == "llama" || config.architecture == "mistral" ||
                             config.architecture == "smollm3";
  if (config.architecture == "phi3") dialect.layer[1] = kGgufFusedFfn;
  if (config.architecture == "seed_oss") {
    dialect.layer = {kGgufSeedOssNorm, kGgufAttention, kGgufFfn};
  }
  if (config.architecture == "falcon" && config.parallel_blocks && config.separate_ffn_norm) {
    dialect.layer[0] = kGgufTwoNorms;
  }
  return dialect;
}

}  // namespace sluice
