// What a model weighs, known without reading any weight: from a .sluice file, from a checkpoint
// that would be converted, or from a config.json alone, of a model that need not be one that sluice
// runs.
#ifndef SLUICE_LOADERS_MODEL_OUTLINE_H_
#define SLUICE_LOADERS_MODEL_OUTLINE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/sluice_file.h"
#include "loaders/architecture.h"
#include "loaders/checkpoint.h"
#include "loaders/convert.h"

namespace sluice {

struct OutlineGroup {
  GroupKind kind = GroupKind::kAttention;
  int64_t layer = -1;
  uint64_t matrix_bytes = 0;
  uint64_t vector_bytes = 0;
  uint64_t largest_piece_bytes = 0;
};

struct OutlineType {
  std::string name;  // of the weight type
  WeightType type;
  uint64_t parameters = 0;
  uint64_t size_bytes = 0;
  // Of these: of groups whose rows are gathered, not multiplied with; of the head, which only the
  // tokens need whose logits are wanted.
  uint64_t embedding_bytes = 0;
  uint64_t head_bytes = 0;
};

struct ModelOutline {
  std::string source;  // "llama, from config.json"
  std::string architecture;
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;
  std::vector<OutlineGroup> groups;                 // in the order of use
  std::vector<OutlineType> types;                   // largest first
  std::vector<LayerStateDescription> layer_states;  // what the KV cache holds for each layer
  std::optional<ModelDescription> description;      // none: not an architecture that sluice runs
  std::string why_not;                              // then: the reason
  uint64_t metadata_bytes = 0;                      // of the file: catalogue, tokenizer

  uint64_t parameters() const;
  uint64_t weight_bytes() const;
};

ModelOutline OutlineFile(const SluiceFile& file);
// As ConvertCheckpoint would make it. Errors: kUnsupported.
Result<ModelOutline> OutlineCheckpoint(const Checkpoint& checkpoint, const QuantizationPlan& plan);
// A config.json by itself; weights are taken to be 16 bits at the source. Architectures that
// sluice does not run are outlined from the usual fields (layers, widths, heads, experts).
// Errors: kCorrupt for text that is no configuration or lacks a size.
Result<ModelOutline> OutlineConfig(std::string_view config_json, const QuantizationPlan& plan);

}  // namespace sluice

#endif  // SLUICE_LOADERS_MODEL_OUTLINE_H_
