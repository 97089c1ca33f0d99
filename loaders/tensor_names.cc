#include "loaders/tensor_names.h"

#include <span>

namespace sluice {
namespace {

struct NamePair {
  std::string_view foreign;
  std::string_view canonical;
};

// Without ".weight" or ".bias".
constexpr NamePair kHuggingFaceModel[] = {
    {"model.embed_tokens", "embed"}, {"model.norm", "norm"}, {"lm_head", "head"}};
constexpr NamePair kHuggingFaceLayer[] = {
    {"input_layernorm", "attn_norm"}, {"self_attn.q_proj", "attn.q"},
    {"self_attn.k_proj", "attn.k"},   {"self_attn.v_proj", "attn.v"},
    {"self_attn.o_proj", "attn.o"},   {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn.gate"},    {"mlp.up_proj", "ffn.up"},
    {"mlp.down_proj", "ffn.down"},
};
constexpr NamePair kGgufModel[] = {
    {"token_embd", "embed"}, {"output_norm", "norm"}, {"output", "head"}};
constexpr NamePair kGgufLayer[] = {
    {"attn_norm", "attn_norm"}, {"attn_q", "attn.q"},      {"attn_k", "attn.k"},
    {"attn_v", "attn.v"},       {"attn_output", "attn.o"}, {"ffn_norm", "ffn_norm"},
    {"ffn_gate", "ffn.gate"},   {"ffn_up", "ffn.up"},      {"ffn_down", "ffn.down"},
};

struct Dialect {
  std::string_view layer_prefix;
  std::span<const NamePair> model;
  std::span<const NamePair> layer;
};
constexpr Dialect kHuggingFace = {"model.layers.", kHuggingFaceModel, kHuggingFaceLayer};
constexpr Dialect kGguf = {"blk.", kGgufModel, kGgufLayer};
constexpr std::string_view kCanonicalLayerPrefix = "layers.";

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

// `to_canonical`: which side of the pairs is looked up.
std::optional<std::string> Translate(const Dialect& dialect, std::string_view name,
                                     bool to_canonical) {
  const std::string_view from = to_canonical ? dialect.layer_prefix : kCanonicalLayerPrefix;
  const std::string_view to = to_canonical ? kCanonicalLayerPrefix : dialect.layer_prefix;
  std::span<const NamePair> pairs = dialect.model;
  std::string prefix;
  if (TakePrefix(from, &name)) {
    std::string_view digits;
    if (!TakeLayer(&name, &digits)) return std::nullopt;
    pairs = dialect.layer;
    prefix = std::string(to) + std::string(digits) + ".";
  }
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view suffix = name.substr(dot);
  if (suffix != ".weight" && suffix != ".bias") return std::nullopt;
  const std::string_view stem = name.substr(0, dot);
  for (const NamePair& pair : pairs) {
    if (stem != (to_canonical ? pair.foreign : pair.canonical)) continue;
    return prefix + std::string(to_canonical ? pair.canonical : pair.foreign) + std::string(suffix);
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> CanonicalNameFromHuggingFace(std::string_view name) {
  return Translate(kHuggingFace, name, /*to_canonical=*/true);
}

std::optional<std::string> CanonicalNameFromGguf(std::string_view name) {
  return Translate(kGguf, name, /*to_canonical=*/true);
}

std::string HuggingFaceNameOf(std::string_view canonical) {
  return Translate(kHuggingFace, canonical, /*to_canonical=*/false)
      .value_or(std::string(canonical));
}

std::string GgufNameOf(std::string_view canonical) {
  return Translate(kGguf, canonical, /*to_canonical=*/false).value_or(std::string(canonical));
}

bool IsIgnoredHuggingFaceTensor(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq");
}

bool IsIgnoredGgufTensor(std::string_view name) {
  // rope_freqs.weight is no leftover, but goes into the configuration.
  return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight") ||
         name.ends_with(".attn_rot_embd");
}

}  // namespace sluice
