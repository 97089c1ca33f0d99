// Writes a .sluice file (FORMAT.md) in bounded memory: pieces in any order, then the catalogue,
// fsync and rename. Nothing stands under the final name before it is complete; what a run that
// ended early has finished, a later one can take over.
#ifndef SLUICE_FORMATS_SLUICE_WRITER_H_
#define SLUICE_FORMATS_SLUICE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/output_file.h"
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

struct WriterOptions {
  // Take over what an earlier run wrote from the same contents and source. Otherwise begin anew.
  bool resume = false;
  // Stands for the weights of the source: two runs with the same one write the same pieces.
  uint64_t source_identity = 0;
  // Pieces go past the page cache, where the file system can do that and their bytes are aligned
  // in memory to kDirectAlignment.
  bool direct = false;
  FileSystem* files = SystemFiles();
};

class SluiceWriter {
 public:
  // Opens and locks `path`.partial and its journal, and takes all the space from the disk.
  // Errors: kUnsupported, kCorrupt (a tensor that the format cannot hold); kInvalidArgument (to be
  // resumed, but begun with other contents or another source); kDoesNotFit (free and needed bytes
  // of the disk); kIo with path and errno, also when another process writes the same file.
  static Result<std::unique_ptr<SluiceWriter>> Create(const std::string& path,
                                                      const SluiceContents& contents,
                                                      const WriterOptions& options = {});
  // Whether an earlier run with the same contents and source finished `path` and ended before its
  // journal was gone, which is removed then. Says no where it cannot tell. Errors: kIo.
  static Result<bool> RecognizeFinished(const std::string& path, const SluiceContents& contents,
                                        const WriterOptions& options);

  // Removes the partial file and its journal, unless Finish succeeded or Keep was called.
  ~SluiceWriter();

  std::span<const PieceEntry> pieces() const;
  const TileLayout& LayoutOf(TensorId tensor) const;
  const std::string& NameOf(TensorId tensor) const;
  uint64_t file_size_bytes() const;

  // Whether an earlier run wrote this piece: reads it, and compares it with the journal's hashes.
  // Any thread.
  bool HasPiece(PieceId piece);

  // Writes one piece: its tiles, without the padding. Each piece once, in any order, from any
  // thread. Every 256 MiB it waits until the disk has all of it. Errors: kIo with path, offset and
  // errno.
  Status WritePiece(PieceId piece, std::span<const std::byte> tiles);

  // REQUIRES: WritePiece succeeded, or HasPiece was true, for every piece. Errors: kIo.
  Status Finish();

  // What is written stays on disk without Finish, to be resumed.
  void Keep();

 private:
  struct Impl;
  explicit SluiceWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_SLUICE_WRITER_H_
