// Checkpoints of architecture "llama" in the Hugging Face form, of any size, with any values.
#ifndef SLUICE_TESTS_SUPPORT_LLAMA_DIRECTORY_H_
#define SLUICE_TESTS_SUPPORT_LLAMA_DIRECTORY_H_

#include <cstdint>
#include <string>

namespace sluice::testing {

struct LlamaDirectory {
  int vocab = 320;  // at least the 307 of the tokenizer
  int hidden = 64;
  int layers = 2;
  int heads = 4;
  int kv_heads = 2;
  int ffn = 96;
  int shards = 1;
  const char* dtype = "F32";  // or "F16" or "BF16", of everything
  bool sparse = false;        // weights are holes of the files: all 0
  uint32_t seed = 1;          // of normal values, else
  // One value of one tensor, by its number in the tensor; "": none.
  std::string spoiled_tensor;
  uint64_t spoiled_index = 0;
  float spoiled_value = 0;

  // Writes config, tokenizer and weights into a new directory.
  void Write(const std::string& directory) const;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_LLAMA_DIRECTORY_H_
