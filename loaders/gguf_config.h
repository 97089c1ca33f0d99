// A GGUF file's metadata as a model configuration.
#ifndef SLUICE_LOADERS_GGUF_CONFIG_H_
#define SLUICE_LOADERS_GGUF_CONFIG_H_

#include <memory>
#include <vector>

#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "formats/model_config.h"
#include "formats/status.h"

namespace sluice {

// Reads the keys of the architecture ("llama.*") as llama.cpp's loader does, with these
// differences: yarn's "yarn_attn_factor", where its converter stores the attention_factor of the
// original configuration, is honoured, and so are the sliding windows of Phi-3. Biases and a tied
// head are told from the tensors that are there; the factors of rotations are tensors, read from
// `files`, those of the set. Errors: kUnsupported (names architecture or feature), kCorrupt,
// kNotFound (names the key).
Result<ModelConfig> ModelConfigFromGguf(const GgufFile& file,
                                        const std::vector<std::unique_ptr<ByteSource>>& files);

}  // namespace sluice

#endif  // SLUICE_LOADERS_GGUF_CONFIG_H_
