#include "loaders/checkpoint_tokenizer.h"

namespace sluice {

Result<std::string> TokenizerJsonOfGguf(const GgufFile& /*gguf*/) { return std::string(); }

Result<std::string> TokenizerJsonOfHuggingFace(const std::string& /*directory*/) {
  return std::string();
}

}  // namespace sluice
