// A checkpoint in a foreign container, seen in sluice's vocabulary: configuration, tokenizer, chat
// template, and tensors by canonical name whose rows can be read in any order.
#ifndef SLUICE_LOADERS_CHECKPOINT_H_
#define SLUICE_LOADERS_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "formats/status.h"

namespace sluice {

// How the bytes of a source row encode its values. Plain types first, then GGUF's blocks of 32 and
// those of 256 (ggml-common.h): each row is whole blocks.
enum class SourceType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4K,
  kQ5K,
  kQ6K,
};
inline constexpr SourceType kAllSourceTypes[] = {
    SourceType::kF32,  SourceType::kF16,  SourceType::kBF16, SourceType::kQ8_0,
    SourceType::kQ4_0, SourceType::kQ4_1, SourceType::kQ5_0, SourceType::kQ5_1,
    SourceType::kQ4K,  SourceType::kQ5K,  SourceType::kQ6K};

const char* SourceTypeName(SourceType type);
// Values of a block: 1, 32 or 256.
uint64_t SourceBlockValues(SourceType type);
// Bytes of a row of `cols` values. REQUIRES: cols is a multiple of the block.
uint64_t SourceRowBytes(SourceType type, uint64_t cols);
// Decodes one row to float32, exactly as the `gguf` package (or a cast) does.
void DecodeSourceRow(SourceType type, const std::byte* row, uint64_t cols, float* out /* [cols] */);

struct SourceTensor {
  std::string name;       // canonical: "layers.3.attn.q.weight" (loaders/architectures)
  std::string file_name;  // as the container calls it, for messages
  SourceType type = SourceType::kF32;
  uint64_t rows = 0;  // output features; 1 for a vector
  uint64_t cols = 0;  // input features, or the vector's length
  uint32_t file_index = 0;
  uint64_t offset_bytes = 0;  // of row 0 in that file; rows are contiguous
  // Where row r of the canonical tensor lies in the source: row_order[r]; empty means r. For a
  // vector (rows is 1, plain type) it orders the elements. ReadRows applies it.
  // (llama.cpp's converter permutes the rows of Q and K; some checkpoints keep the rows of Q, K and
  // V in one tensor, head by head.)
  std::vector<uint32_t> row_order;
  // Added to every value after decoding: norms that are stored as their distance from 1.
  float added = 0;
};

// Rows that ReadRows holds at most beside its output, while it puts rows in order.
inline constexpr uint64_t kReorderedRows = 256;

class Checkpoint {
 public:
  // Opens a Hugging Face directory, or a GGUF file (told apart by content). Reads headers and
  // configuration only, and validates all of it: every tensor that the architecture needs is
  // there, has the right shape, and lies inside its file.
  // Errors: kNotFound, kIo, kTruncated, kCorrupt, kUnsupported (names the architecture, type or
  // feature); each names file and tensor.
  // kDoesNotFit: reading the tokenizer, or the header of a GGUF file, takes more than `max_memory_bytes`.
  static Result<Checkpoint> Open(const std::string& path, uint64_t max_memory_bytes = UINT64_MAX);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const ModelConfig& config() const;
  const std::vector<SourceTensor>& tensors() const;  // canonical names, each once, any order
  const SourceTensor* Find(const std::string& name) const;
  // Tokenizer in sluice's own JSON (Tokenizer::ToJson), and the chat template's source or "".
  const std::string& tokenizer_json() const;
  const std::string& chat_template() const;
  // One line that says what this was: container, path's last component, types.
  const std::string& description() const;
  uint64_t size_bytes() const;  // of all tensors
  // Stands for the bytes of the tensors without reading them: names, sizes and times of change of
  // the files that hold them. Errors: kIo.
  Result<uint64_t> Identity() const;

  // Reads rows [row_begin, row_begin + row_count) in canonical order into `out`
  // (row_count * SourceRowBytes bytes). Thread-safe. Errors: kIo, kTruncated with path and offset.
  Status ReadRows(const SourceTensor& tensor, uint64_t row_begin, uint64_t row_count,
                  std::span<std::byte> out) const;

 private:
  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHECKPOINT_H_
