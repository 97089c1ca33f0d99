// What foreign checkpoints call the tensors of a model.
#ifndef SLUICE_LOADERS_TENSOR_NAMES_H_
#define SLUICE_LOADERS_TENSOR_NAMES_H_

#include <optional>
#include <string>
#include <string_view>

namespace sluice {

// The canonical name ("layers.3.attn.q.weight") of a tensor in a Hugging Face checkpoint of the
// Llama family ("model.layers.3.self_attn.q_proj.weight"), or nothing for a name it does not know.
std::optional<std::string> CanonicalNameFromHuggingFace(std::string_view name);

// The same for GGUF's architecture "llama" ("blk.3.attn_q.weight").
std::optional<std::string> CanonicalNameFromGguf(std::string_view name);

// The other way round, for messages: what the container calls a canonical tensor.
std::string HuggingFaceNameOf(std::string_view canonical);
std::string GgufNameOf(std::string_view canonical);

// Tensors that old converters left behind and no program reads (buffers of rotary embeddings).
bool IsIgnoredHuggingFaceTensor(std::string_view name);
bool IsIgnoredGgufTensor(std::string_view name);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TENSOR_NAMES_H_
