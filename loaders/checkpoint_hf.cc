// Hugging Face directories as checkpoints.
#include "loaders/checkpoint_source.h"

namespace sluice {

Result<CheckpointSource> OpenHuggingFaceDirectory(const std::string& path) {
  return Status(ErrorCode::kUnsupported, path + ": safetensors directories");
}

}  // namespace sluice
