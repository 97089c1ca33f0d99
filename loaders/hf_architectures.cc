#include "loaders/hf_architectures.h"

#include "loaders/hf_readers.h"

namespace sluice {
namespace {

constexpr HuggingFaceArchitecture kArchitectures[] = {
    {"llama", "LlamaForCausalLM", ReadLlama, "llama"},
    {"mistral", "MistralForCausalLM", ReadMistral, "mistral"},
    {"ministral", "MinistralForCausalLM", ReadMinistral, "mistral"},
    {"qwen2", "Qwen2ForCausalLM", ReadQwen2, "qwen2"},
    {"qwen3", "Qwen3ForCausalLM", ReadQwen3, "qwen3"},
    {"phi3", "Phi3ForCausalLM", ReadPhi3, "phi3"},
    {"gemma", "GemmaForCausalLM", ReadGemma, "gemma"},
    {"gemma2", "Gemma2ForCausalLM", ReadGemma2, "gemma2"},
    {"gemma3_text", "Gemma3ForCausalLM", ReadGemma3Text, "gemma3"},
    {"gemma3", "Gemma3ForConditionalGeneration", ReadGemma3, "gemma3"},
    {"olmo2", "Olmo2ForCausalLM", ReadOlmo2, "olmo2"},
    {"olmo3", "Olmo3ForCausalLM", ReadOlmo3, "olmo3"},
    {"seed_oss", "SeedOssForCausalLM", ReadSeedOss, "seed_oss"},
    {"smollm3", "SmolLM3ForCausalLM", ReadSmolLm3, "smollm3"},
    {"stablelm", "StableLmForCausalLM", ReadStableLm, "stablelm"},
    {"falcon", "FalconForCausalLM", ReadFalcon, "falcon"},
    // Its first files, which brought their own code: of 7B and smaller, and of 40B.
    {"RefinedWebModel", "RWForCausalLM", ReadFalcon, "falcon"},
    {"RefinedWeb", "RWForCausalLM", ReadFalcon, "falcon"},
    {"starcoder2", "Starcoder2ForCausalLM", ReadStarcoder2, "starcoder2"},
    {"gpt_bigcode", "GPTBigCodeForCausalLM", ReadGptBigCode, "gpt_bigcode"},
    {"gpt_neox", "GPTNeoXForCausalLM", ReadGptNeoX, "gpt_neox"},
    {"opt", "OPTForCausalLM", ReadOpt, "opt"},
    {"bloom", "BloomForCausalLM", ReadBloom, "bloom"},
    {"mpt", "MptForCausalLM", ReadMpt, "mpt"},
    {"mpt", "MPTForCausalLM", ReadMpt, "mpt"},  // of the checkpoints that bring their own code
    // Their text part says which architecture it is.
    {"llava", "LlavaForConditionalGeneration", ReadLlava, "llama"},
    {"llava_next", "LlavaNextForConditionalGeneration", ReadLlava, "llama"},
    {"mistral3", "Mistral3ForConditionalGeneration", ReadMistral3, "mistral"},
};

}  // namespace

std::span<const HuggingFaceArchitecture> HuggingFaceArchitectures() { return kArchitectures; }

}  // namespace sluice
