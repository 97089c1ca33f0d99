// What a reader of one container hands to Checkpoint. Private to loaders.
#ifndef SLUICE_LOADERS_CHECKPOINT_SOURCE_H_
#define SLUICE_LOADERS_CHECKPOINT_SOURCE_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "formats/model_config.h"
#include "formats/status.h"
#include "loaders/architecture.h"
#include "loaders/checkpoint.h"
#include "loaders/tensor_names.h"

namespace sluice {

// One tensor as its container describes it.
struct ForeignTensor {
  std::string name;             // the container's
  std::vector<uint64_t> shape;  // outermost first
  std::string type_name;        // the container's, for example "Q4_K"
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;
  uint32_t file_index = 0;
};

struct CheckpointSource {
  ModelConfig config;
  std::vector<std::unique_ptr<ByteSource>> files;
  std::vector<SourceTensor> tensors;
  std::string tokenizer_json;
  std::string chat_template;
  std::string description;
};

// kDoesNotFit: reading the tokenizer takes more than `max_memory_bytes`.
Result<CheckpointSource> OpenHuggingFaceDirectory(const std::string& path,
                                                  uint64_t max_memory_bytes);
Result<CheckpointSource> OpenGguf(std::unique_ptr<ByteSource> file,
                                  uint64_t max_memory_bytes = UINT64_MAX);

// The tensors of `foreign` under their canonical names: each that the architecture of `config`
// needs exactly once, with the right shape and a type that can be decoded, and nothing else; parts
// of a tensor that holds several are tensors of their own.
// Errors: kCorrupt (missing, twice, wrong shape), kUnsupported (type, tensor that the architecture
// does not have); each names the file and the tensor as the container calls it.
// REQUIRES: config.Validate().ok().
Result<std::vector<SourceTensor>> MatchTensors(
    const ModelConfig& config, const TensorDialect& dialect,
    const std::vector<ForeignTensor>& foreign,
    const std::vector<std::unique_ptr<ByteSource>>& files);

// "BF16 x 201, F32 x 61", the most frequent first.
std::string SummarizeTypes(const std::vector<SourceTensor>& tensors);

// The part of a path after the last slash (slashes at its end do not count).
std::string LastPathComponent(std::string_view path);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHECKPOINT_SOURCE_H_
