// Writes a .sluice file (FORMAT.md) in bounded memory: the catalogue first, then pieces in any
// order, then hashes, fsync and rename. Nothing stands under the final name before it is complete.
#ifndef SLUICE_FORMATS_SLUICE_WRITER_H_
#define SLUICE_FORMATS_SLUICE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/sluice_file.h"
#include "formats/status.h"

namespace sluice {

struct PlannedTensor {
  std::string name;
  WeightType type;
  uint32_t tile_rows = kTileRows;
  uint64_t rows = 0;
  uint64_t cols = 0;
};

struct PlannedGroup {
  GroupKind kind = GroupKind::kAttention;
  uint32_t layer = kNoIndex;
  uint32_t expert = kNoIndex;
  std::vector<PlannedTensor> tensors;
};

struct SluiceContents {
  ModelConfig config;
  std::string tokenizer_json;   // "": none
  std::string chat_template;    // "": none
  std::string provenance_json;  // "": none
  std::vector<PlannedGroup> groups;
};

class SluiceWriter {
 public:
  // Creates `path`.partial (replacing one) and reserves the metadata.
  // Errors: kUnsupported, kCorrupt (a tensor that the format cannot hold), kIo with path and errno.
  static Result<std::unique_ptr<SluiceWriter>> Create(const std::string& path,
                                                      const SluiceContents& contents);
  // Removes the partial file unless Finish succeeded.
  ~SluiceWriter();

  std::span<const PieceEntry> pieces() const;
  const TileLayout& LayoutOf(TensorId tensor) const;
  const std::string& NameOf(TensorId tensor) const;
  uint64_t file_size_bytes() const;

  // Writes one piece: its tiles, without the padding. Each piece exactly once, in any order, from
  // any thread. Errors: kIo with path, offset and errno.
  Status WritePiece(PieceId piece, std::span<const std::byte> tiles);

  // REQUIRES: every piece was written. Errors: kIo.
  Status Finish();

 private:
  struct Impl;
  explicit SluiceWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_SLUICE_WRITER_H_
