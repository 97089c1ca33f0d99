// What the readers of configurations share (hf_architectures.h). Private to loaders.
#ifndef SLUICE_LOADERS_HF_READERS_H_
#define SLUICE_LOADERS_HF_READERS_H_

#include <functional>

#include "formats/model_config.h"
#include "loaders/hf_fields.h"

namespace sluice {

// The activation by transformers' name.
void ReadActivation(FieldReader* fields, const char* field, const char* fallback,
                    ModelConfig* model);

// A flag that changes the computation in a way that no description has.
void RefuseUnless(FieldReader* fields, const char* name, bool wanted);

// What a class of transformers assumes of members that are absent; 0: as if they were null.
struct SizeDefaults {
  int64_t kv_heads = 0;  // null: as many as query heads
  int64_t head_dim = 0;  // null: hidden_size / num_attention_heads
};

// The numbers that most architectures spell alike.
void ReadSizes(const SizeDefaults& defaults, FieldReader* fields, ModelConfig* model);

// Where GPT-2 and what came after it write their sizes: by one name, or by the first of two that is
// there.
struct GptSizeNames {
  struct Name {
    const char* first;
    const char* second = nullptr;
  };
  Name hidden_size, num_layers, num_heads;
};

// These and the vocabulary. Heads divide the width, each has keys of its own, and an FFN is four
// times as wide.
void ReadGptSizes(const GptSizeNames& names, FieldReader* fields, ModelConfig* model);

// The window of each layer: layer_types says which have one, else has_window does.
void ReadWindows(FieldReader* fields, int64_t window,
                 const std::function<bool(int64_t layer)>& has_window, ModelConfig* model);

inline constexpr auto kEveryLayer = [](int64_t) { return true; };

// The families, by how they read (Status (*)(const nlohmann::json&, ModelConfig*)).
Status ReadLlama(const nlohmann::json& json, ModelConfig* model);
Status ReadMistral(const nlohmann::json& json, ModelConfig* model);
Status ReadMinistral(const nlohmann::json& json, ModelConfig* model);
Status ReadQwen2(const nlohmann::json& json, ModelConfig* model);
Status ReadQwen3(const nlohmann::json& json, ModelConfig* model);
Status ReadPhi3(const nlohmann::json& json, ModelConfig* model);
Status ReadOlmo2(const nlohmann::json& json, ModelConfig* model);
Status ReadOlmo3(const nlohmann::json& json, ModelConfig* model);
Status ReadSeedOss(const nlohmann::json& json, ModelConfig* model);
Status ReadSmolLm3(const nlohmann::json& json, ModelConfig* model);

Status ReadGemma(const nlohmann::json& json, ModelConfig* model);
Status ReadGemma2(const nlohmann::json& json, ModelConfig* model);
Status ReadGemma3Text(const nlohmann::json& json, ModelConfig* model);
Status ReadGemma3(const nlohmann::json& json, ModelConfig* model);

Status ReadLlava(const nlohmann::json& json, ModelConfig* model);
Status ReadMistral3(const nlohmann::json& json, ModelConfig* model);

Status ReadBloom(const nlohmann::json& json, ModelConfig* model);
Status ReadFalcon(const nlohmann::json& json, ModelConfig* model);
Status ReadGptBigCode(const nlohmann::json& json, ModelConfig* model);
Status ReadGptNeoX(const nlohmann::json& json, ModelConfig* model);
Status ReadMpt(const nlohmann::json& json, ModelConfig* model);
Status ReadOpt(const nlohmann::json& json, ModelConfig* model);
Status ReadStableLm(const nlohmann::json& json, ModelConfig* model);
Status ReadStarcoder2(const nlohmann::json& json, ModelConfig* model);

}  // namespace sluice

#endif  // SLUICE_LOADERS_HF_READERS_H_
