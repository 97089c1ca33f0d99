// The tiny models of tests/golden and what transformers computes from them.
#ifndef SLUICE_TESTS_SUPPORT_GOLDEN_MODEL_H_
#define SLUICE_TESTS_SUPPORT_GOLDEN_MODEL_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::testing {

struct GoldenGreedy {
  std::vector<int32_t> prompt;
  std::vector<int32_t> next;
};

struct GoldenModel {
  std::string name;
  std::string source_path;                   // the checkpoint
  std::vector<std::vector<int32_t>> tokens;  // 2 sequences of 96
  std::vector<int64_t> positions;            // with logits
  std::vector<float> logits;                 // [2, positions, vocab]
  std::vector<int64_t> argmax;               // [2, 96]
  std::vector<float> logsumexp;              // [2, 96]
  int64_t vocab = 0;
  std::vector<GoldenGreedy> greedy;  // empty for GGUF files

  // The expected logits of a position, empty if they are not recorded.
  std::span<const float> ExpectedLogits(int64_t sequence, int64_t position) const;
};

// Names of the checkpoints in the Hugging Face form, and "gguf/TYPE" for the others.
std::vector<std::string> HuggingFaceGoldens();
std::vector<std::string> GgufGoldens();
// Names "architectures/NAME" of those in the Hugging Face form, one or more for each architecture.
std::vector<std::string> ArchitectureGoldens();
// "architectures/NAME/model.gguf", where llama.cpp's converter knows the architecture.
std::vector<std::string> ArchitectureGgufGoldens();

// Fails the test by an exception when a file is missing or damaged.
GoldenModel LoadGolden(const std::string& name);

// Converts the checkpoint; `quantization` as for --quant. Returns the path of the .sluice file.
std::string ConvertGolden(const GoldenModel& model, const std::string& quantization,
                          const std::string& output_path);

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_GOLDEN_MODEL_H_
