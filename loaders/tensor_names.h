// What foreign checkpoints call the tensors of a model, and how they arrange them.
#ifndef SLUICE_LOADERS_TENSOR_NAMES_H_
#define SLUICE_LOADERS_TENSOR_NAMES_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "formats/model_config.h"

namespace sluice {

struct NamePair {
  std::string_view foreign;
  std::string_view canonical;
};

// One container's spelling of one architecture. Canonical names are those of loaders/architectures
// ("layers.3.attn.q.weight"), and of matrices that a checkpoint keeps in one tensor: "attn.qkv" is
// q, k and v, "ffn.gate_up" is gate and up.
struct TensorDialect {
  // The canonical name of a foreign tensor, or nothing for a name that the dialect does not have.
  std::optional<std::string> CanonicalName(std::string_view foreign) const;
  // The other way round, for messages: what the container calls a canonical tensor.
  std::string ForeignName(std::string_view canonical) const;
  // Tensors that old converters left behind and no program reads (buffers), and those that are read
  // elsewhere or belong to parts of a model that sluice does not run (images).
  bool IsIgnored(std::string_view foreign) const;

  // One of these may stand before every name; the first is the usual one, and the head has none.
  std::span<const std::string_view> prefixes;
  std::string_view layer_prefix;
  std::span<const NamePair> model;                 // without ".weight" or ".bias"
  std::array<std::span<const NamePair>, 3> layer;  // the same, after "layers.N."
  std::span<const std::string_view> ignored_prefixes;
  std::span<const std::string_view> ignored_suffixes;

  // Rows of "attn.qkv": for each KV head its query heads, its key and its value. Otherwise all
  // queries, all keys, all values.
  bool interleaves_qkv = false;
  // Pairs that rotate together are neighbours in the rows of q and k, not half a head apart.
  bool pairs_neighbours = false;
  // Weights of norms lack the 1 that the model adds.
  bool norms_lack_one = false;
  // Rows of the table of positions before that of position 0.
  uint64_t rows_before_positions = 0;
};

// Of Hugging Face checkpoints (transformers' modeling_*.py).
// REQUIRES: the architecture is one of loaders/architecture.h.
TensorDialect HuggingFaceDialect(const ModelConfig& config);

// Of GGUF files (the gguf package's tensor_mapping.py, and llama.cpp's converter).
TensorDialect GgufDialect(const ModelConfig& config);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TENSOR_NAMES_H_
