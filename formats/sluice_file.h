// The catalogue of a .sluice file (FORMAT.md), parsed and validated before anything is handed out.
#ifndef SLUICE_FORMATS_SLUICE_FILE_H_
#define SLUICE_FORMATS_SLUICE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/model_config.h"
#include "formats/status.h"
#include "formats/tile_layout.h"
#include "formats/weight_group.h"

namespace sluice {

inline constexpr uint64_t kSluiceAlignment = 4096;
inline constexpr uint64_t kSluiceChunkBytes = 1u << 20;
inline constexpr uint64_t kSluiceMaxPieceBytes = 16u << 20;
inline constexpr uint32_t kNoIndex = 0xffffffffu;

// Positions in the catalogue.
using TensorId = uint32_t;
using GroupId = uint32_t;
using PieceId = uint32_t;

struct TensorEntry {
  std::string_view name;  // into the file's metadata; lives as long as the SluiceFile
  TileLayout layout;
  GroupId group = 0;
  PieceId first_piece = 0;
  uint32_t piece_count = 0;
};

struct GroupEntry {
  GroupKind kind = GroupKind::kAttention;
  uint32_t layer = kNoIndex;
  uint32_t expert = kNoIndex;
  TensorId first_tensor = 0;
  uint32_t tensor_count = 0;
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;
};

struct PieceEntry {
  uint64_t offset_bytes = 0;
  uint32_t size_bytes = 0;  // with padding
  TensorId tensor = 0;
  uint64_t row_begin = 0;
  uint64_t row_count = 0;
  uint64_t first_chunk = 0;
};

// XXH3-64, seed 0.
uint64_t HashBytes(std::span<const std::byte> bytes);

// Immutable after Open; all const methods may be called from any thread.
class SluiceFile {
 public:
  // Reads and validates header and metadata, no weights. Errors: kNotFound, kIo, kTruncated,
  // kCorrupt, kUnsupported (version, required feature), each with path and offset or tensor.
  static Result<std::shared_ptr<const SluiceFile>> Open(const std::string& path);
  // The same from bytes of any kind.
  static Result<std::shared_ptr<const SluiceFile>> Parse(std::unique_ptr<ByteSource> source);

  const std::string& path() const { return source_->name(); }
  const ByteSource& source() const { return *source_; }
  // Null when the bytes are not a file's.
  const ReadOnlyFile* disk_file() const { return disk_file_; }
  uint64_t metadata_size_bytes() const { return metadata_.size(); }

  const ModelConfig& config() const { return config_; }
  std::string_view config_json() const { return config_json_; }
  std::string_view tokenizer_json() const { return tokenizer_json_; }  // "" if there is none
  std::string_view chat_template() const { return chat_template_; }
  std::string_view provenance_json() const { return provenance_json_; }

  std::span<const TensorEntry> tensors() const { return tensors_; }
  std::span<const GroupEntry> groups() const { return groups_; }
  std::span<const PieceEntry> pieces() const { return pieces_; }
  std::span<const PieceEntry> PiecesOf(TensorId tensor) const;
  // kNoIndex if there is no such tensor.
  TensorId Find(std::string_view name) const;

  // Compares the piece's bytes (all size_bytes of it) with their hashes.
  // Error: kCorrupt with path, tensor and the offset of the first bad chunk.
  Status VerifyPiece(PieceId piece, std::span<const std::byte> bytes) const;
  // The same for chunk `chunk` of the piece, counted from 0; bytes: those of the chunk.
  Status VerifyChunk(PieceId piece, uint64_t chunk, std::span<const std::byte> bytes) const;

 private:
  struct Section {
    uint32_t kind;
    uint64_t offset_bytes;
    uint64_t size_bytes;
  };

  SluiceFile() = default;
  Status ReadHeader();
  Status ParseSections();
  Status ParseTensors();
  Status ParseGroups();
  Status ParsePieces();
  Status CheckTensorPieces() const;
  Status CheckGroupExtents() const;
  Status Corrupt(const std::string& what) const;

  std::span<const std::byte> SectionBytes(uint32_t kind) const;
  std::string_view SectionText(uint32_t kind) const;

  std::unique_ptr<ByteSource> source_;
  const ReadOnlyFile* disk_file_ = nullptr;
  std::vector<std::byte> metadata_;  // the bytes [0, metadata_size)
  std::vector<Section> sections_;
  ModelConfig config_;
  std::string_view config_json_, tokenizer_json_, chat_template_, provenance_json_;
  std::vector<TensorEntry> tensors_;
  std::vector<GroupEntry> groups_;
  std::vector<PieceEntry> pieces_;
  std::vector<uint64_t> chunk_hashes_;
  std::unordered_map<std::string_view, TensorId> tensor_by_name_;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_SLUICE_FILE_H_
