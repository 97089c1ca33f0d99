#include "loaders/architecture.h"

#include <iterator>

#include "loaders/architectures/decoder.h"

namespace sluice {
namespace {

struct Architecture {
  const char* name;
  DecoderTraits traits;
};

// GPT-2's family: LayerNorm, a feed-forward network without a gate.
constexpr DecoderTraits kRotatingGpt = {.norm = NormKind::kLayer, .gated_ffn = false};
constexpr DecoderTraits kGpt = {
    .norm = NormKind::kLayer, .gated_ffn = false, .learned_positions = true};

constexpr DecoderTraits kBloom = {
    .norm = NormKind::kLayer, .gated_ffn = false, .embedding_norm = true};
constexpr DecoderTraits kMpt = {.norm = NormKind::kLayer, .gated_ffn = false, .norm_biases = false};

constexpr Architecture kArchitectures[] = {
    {"llama", {}},                                 // Touvron et al., 2023
    {"mistral", {}},                               // Jiang et al., 2023: sliding window
    {"qwen2", {}},                                 // Yang et al., 2024: biases of q, k and v
    {"qwen3", {.qk_norm = QkNorm::kHead}},         // Yang et al., 2025
    {"phi3", {}},                                  // Abdin et al., 2024: longrope
    {"gemma", {}},                                 // Gemma team, 2024: scaled embedding
    {"gemma2", {.norm_place = NormPlace::kBoth}},  // Gemma team, 2024: soft caps, windows
    {"gemma3", {.norm_place = NormPlace::kBoth, .qk_norm = QkNorm::kHead}},  // 2025: two rotations
    {"olmo2", {.norm_place = NormPlace::kOutput, .qk_norm = QkNorm::kRow}},  // Team OLMo, 2024
    {"olmo3", {.norm_place = NormPlace::kOutput, .qk_norm = QkNorm::kRow}},  // 2025: windows
    {"seed_oss", {}},                                                        // ByteDance, 2025
    {"smollm3", {}},                           // Bakouch et al., 2025: layers without rotation
    {"stablelm", {.norm = NormKind::kLayer}},  // Bellagamba et al., 2024: part of each head rotates
    {"gpt_neox", kRotatingGpt},                // Black et al., 2022: parallel blocks
    {"falcon", kRotatingGpt},                  // Almazrouei et al., 2023: MQA, parallel blocks
    {"starcoder2", kRotatingGpt},              // Lozhkov et al., 2024
    {"gpt_bigcode", kGpt},                     // Li et al., 2023: MQA
    {"opt", kGpt},                             // Zhang et al., 2022
    {"bloom", kBloom},                         // Le Scao et al., 2022: ALiBi
    {"mpt", kMpt},                             // MosaicML, 2023: ALiBi
};

}  // namespace

Result<ModelDescription> DescribeModel(const ModelConfig& config) {
  for (const Architecture& architecture : kArchitectures) {
    if (config.architecture == architecture.name) {
      return DescribeDecoder(config, architecture.traits);
    }
  }
  std::string known;
  for (std::string_view name : SupportedArchitectures()) {
    if (!known.empty()) known += ", ";
    known += name;
  }
  return Status(ErrorCode::kUnsupported,
                "architecture '" + config.architecture + "' is not supported; supported: " + known);
}

std::vector<TensorRequirement> RequiredTensors(const ModelDescription& description) {
  std::vector<TensorRequirement> tensors;
  for (const GroupDescription& group : description.groups) {
    tensors.insert(tensors.end(), group.tensors.begin(), group.tensors.end());
  }
  return tensors;
}

std::vector<std::string_view> SupportedArchitectures() {
  std::vector<std::string_view> names;
  for (const Architecture& architecture : kArchitectures) names.push_back(architecture.name);
  return names;
}

}  // namespace sluice
