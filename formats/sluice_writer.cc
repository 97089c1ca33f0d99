#include "formats/sluice_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>

#include "formats/checked.h"
#include "formats/mapped_file.h"
#include "formats/piece_journal.h"
#include "formats/sluice_records.h"

namespace sluice {
namespace {

constexpr uint64_t kSyncBytes = uint64_t{256}
                                << 20;  // at most this much work is lost with the power

// The part of `memory` that begins at a page, for writes past the page cache.
std::span<std::byte> FromPage(std::span<std::byte> memory) {
  const uint64_t rest = reinterpret_cast<uintptr_t>(memory.data()) % kDirectAlignment;
  return memory.subspan((kDirectAlignment - rest) % kDirectAlignment);
}

uint64_t TilesPerPiece(const TileLayout& layout) {
  return kSluiceMaxPieceBytes / layout.tile_bytes;  // a tile is never larger than a piece
}

}  // namespace

struct SluiceWriter::Impl {
  std::string path;
  FileSystem* files = nullptr;
  std::unique_ptr<OutputFile> file;  // the partial one; holds the lock
  std::unique_ptr<PieceJournal> journal;
  bool remove = false;  // when this ends
  std::atomic<uint64_t> unsynced_bytes = 0;

  std::vector<std::string> sections;  // by index in section_kinds
  std::vector<uint32_t> section_kinds;
  std::vector<std::string> names;
  std::vector<TileLayout> layouts;
  std::vector<PieceEntry> pieces;
  std::vector<uint64_t> chunk_hashes;
  uint64_t metadata_size = 0;
  uint64_t file_size = 0;

  ~Impl() {
    if (!remove) return;
    files->Remove(journal_path());
    files->Remove(file->path());
  }

  std::string partial_path() const { return path + ".partial"; }
  std::string journal_path() const { return path + ".partial.journal"; }
  // REQUIRES: no chunk has a hash yet.
  PieceJournal::Identity Identity(const WriterOptions& options) const {
    return {options.source_identity, HashBytes(Metadata()), chunk_hashes.size()};
  }
  Status Plan(const SluiceContents& contents);
  Status OpenFiles(const WriterOptions& options);
  Status PlanTensor(const PlannedTensor& planned, GroupId group, uint64_t* offset,
                    std::vector<TensorRecord>* records, std::string* name_bytes);
  std::vector<std::byte> Metadata() const;
};

Status SluiceWriter::Impl::PlanTensor(const PlannedTensor& planned, GroupId group, uint64_t* offset,
                                      std::vector<TensorRecord>* records, std::string* name_bytes) {
  if (planned.name.empty() || planned.name.size() > kSluiceMaxNameBytes) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("a tensor name of {} bytes", planned.name.size()));
  }
  Result<TileLayout> layout =
      MakeTileLayout(planned.type, planned.rows, planned.cols, planned.tile_rows);
  if (!layout.ok()) return layout.status().WithContext("tensor '" + planned.name + "'");
  TensorRecord record = {};
  record.name_offset = name_bytes->size();
  record.name_size = static_cast<uint32_t>(planned.name.size());
  record.kind = static_cast<uint8_t>(planned.type.kind);
  record.offset_kind = static_cast<uint8_t>(planned.type.offset);
  record.group_size = planned.type.group_size;
  record.layout_version = kSluiceLayoutVersion;
  record.tile_rows = static_cast<uint16_t>(planned.tile_rows);
  record.group = group;
  record.rows = planned.rows;
  record.cols = planned.cols;
  record.first_piece = pieces.size();
  const uint64_t step = TilesPerPiece(*layout);
  for (uint64_t tile = 0; tile < layout->num_tiles; tile += step) {
    const uint64_t tiles = std::min(step, layout->num_tiles - tile);
    PieceEntry piece;
    piece.offset_bytes = *offset;  // within the data; moved behind the metadata later
    piece.size_bytes = static_cast<uint32_t>(RoundUp(tiles * layout->tile_bytes, kSluiceAlignment));
    piece.tensor = static_cast<TensorId>(names.size());
    piece.row_begin = tile * planned.tile_rows;
    piece.row_count = std::min(tiles * planned.tile_rows, planned.rows - piece.row_begin);
    piece.first_chunk = chunk_hashes.size();
    chunk_hashes.resize(chunk_hashes.size() + CeilDiv(piece.size_bytes, kSluiceChunkBytes));
    if (!CheckedAdd(*offset, piece.size_bytes, offset)) {
      return Status(ErrorCode::kUnsupported, "the file would be larger than 2^64 bytes");
    }
    pieces.push_back(piece);
  }
  record.piece_count = pieces.size() - record.first_piece;
  records->push_back(record);
  *name_bytes += planned.name;
  names.push_back(planned.name);
  layouts.push_back(*layout);
  return Status();
}

Status SluiceWriter::Impl::Plan(const SluiceContents& contents) {
  std::vector<TensorRecord> tensor_records;
  std::vector<GroupRecord> group_records;
  std::string name_bytes;
  uint64_t data_size = 0;
  for (const PlannedGroup& planned : contents.groups) {
    GroupRecord group = {};
    group.kind = static_cast<uint32_t>(planned.kind);
    group.layer = planned.layer;
    group.expert = planned.expert;
    group.first_tensor = tensor_records.size();
    group.tensor_count = planned.tensors.size();
    group.offset = data_size;
    for (const PlannedTensor& tensor : planned.tensors) {
      Status status = PlanTensor(tensor, static_cast<GroupId>(group_records.size()), &data_size,
                                 &tensor_records, &name_bytes);
      if (!status.ok()) return status;
    }
    group.size = data_size - group.offset;
    group_records.push_back(group);
  }

  const auto add_section = [this](uint32_t kind, std::string bytes) {
    section_kinds.push_back(kind);
    sections.push_back(std::move(bytes));
  };
  const auto as_bytes = [](const auto& records) {
    return std::string(reinterpret_cast<const char*>(records.data()),
                       records.size() * sizeof(records[0]));
  };
  add_section(kSectionConfig, contents.config.ToJson());
  if (!contents.tokenizer_json.empty()) add_section(kSectionTokenizer, contents.tokenizer_json);
  if (!contents.chat_template.empty()) add_section(kSectionChatTemplate, contents.chat_template);
  if (!contents.provenance_json.empty()) add_section(kSectionProvenance, contents.provenance_json);
  add_section(kSectionNames, name_bytes);
  add_section(kSectionTensors, as_bytes(tensor_records));
  const uint64_t piece_bytes = pieces.size() * sizeof(PieceRecord);
  const uint64_t group_bytes = group_records.size() * sizeof(GroupRecord);
  const uint64_t hash_bytes = chunk_hashes.size() * sizeof(uint64_t);
  uint64_t size = kSluiceHeaderBytes;
  for (const std::string& section : sections) size += RoundUp(section.size(), 8);
  metadata_size = RoundUp(size + group_bytes + piece_bytes + hash_bytes, kSluiceAlignment);
  if (!CheckedAdd(metadata_size, data_size, &file_size)) {
    return Status(ErrorCode::kUnsupported, "the file would be larger than 2^64 bytes");
  }

  for (GroupRecord& group : group_records) group.offset += metadata_size;
  add_section(kSectionGroups, as_bytes(group_records));
  std::vector<PieceRecord> piece_records;
  piece_records.reserve(pieces.size());
  for (PieceEntry& piece : pieces) {
    piece.offset_bytes += metadata_size;
    piece_records.push_back({piece.offset_bytes, piece.size_bytes, piece.tensor, piece.row_begin,
                             piece.row_count, piece.first_chunk});
  }
  add_section(kSectionPieces, as_bytes(piece_records));
  return Status();
}

// Header and sections; the section of hashes comes last, from chunk_hashes as they are now.
std::vector<std::byte> SluiceWriter::Impl::Metadata() const {
  std::vector<std::byte> bytes(metadata_size);
  HeaderRecord header = {};
  std::memcpy(header.magic, kSluiceMagic, sizeof(kSluiceMagic));
  header.version = kSluiceVersion;
  header.header_size = kSluiceHeaderBytes;
  header.file_size = file_size;
  header.metadata_size = metadata_size;
  for (const TileLayout& layout : layouts) {
    if (layout.type.kind >= WeightKind::kInt5) header.required_features |= kSluiceFeatureGgufTypes;
  }
  header.alignment = kSluiceAlignment;
  header.chunk_size = kSluiceChunkBytes;
  uint64_t offset = kSluiceHeaderBytes;
  const auto place = [&](uint32_t kind, const void* data, uint64_t size) {
    header.sections[header.section_count++] = {kind, 0, offset, size};
    if (size > 0) std::memcpy(bytes.data() + offset, data, size);
    offset += RoundUp(size, 8);
  };
  for (size_t i = 0; i < sections.size(); ++i) {
    place(section_kinds[i], sections[i].data(), sections[i].size());
  }
  place(kSectionChunkHashes, chunk_hashes.data(), chunk_hashes.size() * sizeof(uint64_t));
  header.metadata_hash = HashBytes(std::span(bytes).subspan(kSluiceHeaderBytes));
  header.header_hash = HashBytes(std::as_bytes(std::span(&header, 1)).first(504));
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

SluiceWriter::SluiceWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SluiceWriter::~SluiceWriter() = default;

Status SluiceWriter::Impl::OpenFiles(const WriterOptions& options) {
  files = options.files;
  Result<std::unique_ptr<OutputFile>> opened = OutputFile::OpenLocked(files, partial_path());
  if (!opened.ok()) return opened.status();
  file = *std::move(opened);
  Result<uint64_t> size = file->SizeBytes();
  if (!size.ok()) return size.status();
  remove = *size == 0;  // an earlier run's stays when this one cannot begin
  const uint64_t journal_size = PieceJournal::SizeBytes(chunk_hashes.size());
  if (Status s = file->CheckSpace(file_size + journal_size); !s.ok()) return s;
  Result<std::unique_ptr<PieceJournal>> begun =
      PieceJournal::Open(files, journal_path(), Identity(options), options.resume, &chunk_hashes);
  if (!begun.ok()) return begun.status();
  journal = *std::move(begun);
  if (!options.resume) {
    remove = true;
    if (Status s = file->Resize(0); !s.ok()) return s;
  }
  if (options.direct) file->WriteDirectly();
  return file->Reserve(file_size);
}

Result<std::unique_ptr<SluiceWriter>> SluiceWriter::Create(const std::string& path,
                                                           const SluiceContents& contents,
                                                           const WriterOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  if (Status status = impl->Plan(contents); !status.ok()) return status;
  if (Status status = impl->OpenFiles(options); !status.ok()) return status;
  return std::unique_ptr<SluiceWriter>(new SluiceWriter(std::move(impl)));
}

Result<bool> SluiceWriter::RecognizeFinished(const std::string& path,
                                             const SluiceContents& contents,
                                             const WriterOptions& options) {
  Impl impl;
  impl.path = path;
  if (Status status = impl.Plan(contents); !status.ok()) return status;
  if (access(impl.partial_path().c_str(), F_OK) == 0) return false;  // of a run that goes on
  std::optional<std::vector<uint64_t>> hashes =
      PieceJournal::Read(impl.journal_path(), impl.Identity(options));
  if (!hashes) return false;
  impl.chunk_hashes = *std::move(hashes);
  // The file's metadata has the hash of every chunk, so no other file has the same.
  const std::vector<std::byte> expected = impl.Metadata();
  std::vector<std::byte> found(expected.size());
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok() || (*file)->size_bytes() != impl.file_size || !(*file)->ReadAt(0, found).ok() ||
      found != expected) {
    return false;
  }
  if (Status s = RemoveFile(options.files, impl.journal_path()); !s.ok()) return s;
  if (Status s = SyncFolder(options.files, path); !s.ok()) return s;
  return true;
}

std::span<const PieceEntry> SluiceWriter::pieces() const { return impl_->pieces; }
const TileLayout& SluiceWriter::LayoutOf(TensorId tensor) const { return impl_->layouts[tensor]; }
const std::string& SluiceWriter::NameOf(TensorId tensor) const { return impl_->names[tensor]; }
uint64_t SluiceWriter::file_size_bytes() const { return impl_->file_size; }

bool SluiceWriter::HasPiece(PieceId id) {
  const PieceEntry& piece = impl_->pieces[id];
  std::vector<std::byte> bytes;
  for (uint64_t begin = 0; begin < piece.size_bytes; begin += kSluiceChunkBytes) {
    const uint64_t hash = impl_->chunk_hashes[piece.first_chunk + begin / kSluiceChunkBytes];
    if (hash == 0) return false;
    bytes.resize(std::min<uint64_t>(kSluiceChunkBytes, piece.size_bytes - begin));
    if (!impl_->file->ReadAt(piece.offset_bytes + begin, bytes).ok()) return false;
    if (HashBytes(bytes) != hash) return false;
  }
  return true;
}

Status SluiceWriter::WritePiece(PieceId id, std::span<const std::byte> tiles) {
  const PieceEntry& piece = impl_->pieces[id];
  const uint64_t whole = tiles.size() / kSluiceChunkBytes * kSluiceChunkBytes;
  uint64_t chunk = piece.first_chunk;
  for (uint64_t begin = 0; begin < whole; begin += kSluiceChunkBytes) {
    impl_->chunk_hashes[chunk++] = HashBytes(tiles.subspan(begin, kSluiceChunkBytes));
  }
  if (Status s = impl_->file->WriteAt(piece.offset_bytes, tiles.first(whole)); !s.ok()) return s;
  // Chunks are hashed with their padding; only the last one can have any.
  if (whole < piece.size_bytes) {
    const std::span<const std::byte> last = tiles.subspan(whole);
    std::vector<std::byte> memory(piece.size_bytes - whole + kDirectAlignment);
    const std::span<std::byte> rest = FromPage(memory).first(piece.size_bytes - whole);
    std::copy(last.begin(), last.end(), rest.begin());
    impl_->chunk_hashes[chunk++] = HashBytes(rest);
    if (Status s = impl_->file->WriteAt(piece.offset_bytes + whole, rest); !s.ok()) return s;
  }
  Status s = impl_->journal->Record(
      piece.first_chunk,
      std::span(impl_->chunk_hashes).subspan(piece.first_chunk, chunk - piece.first_chunk));
  if (!s.ok()) return s;
  if (impl_->unsynced_bytes.fetch_add(tiles.size()) + tiles.size() < kSyncBytes) return Status();
  impl_->unsynced_bytes = 0;
  if (Status sync = impl_->file->Sync(); !sync.ok()) return sync;
  return impl_->journal->Sync();
}

Status SluiceWriter::Finish() {
  Impl& impl = *impl_;
  // The header comes when all that it vouches for is on disk.
  if (Status s = impl.file->Sync(); !s.ok()) return s;
  if (Status s = impl.file->WriteAt(0, impl.Metadata()); !s.ok()) return s;
  if (Status s = impl.file->Sync(); !s.ok()) return s;
  // By the journal a later run recognizes the file where this one ends before it is removed.
  if (Status s = impl.journal->Sync(); !s.ok()) return s;
  if (Status s = RenameFile(impl.files, impl.file->path(), impl.path); !s.ok()) return s;
  impl.remove = false;
  impl.files->Remove(impl.journal_path());  // a journal without its file is worth nothing
  return SyncFolder(impl.files, impl.path);
}

void SluiceWriter::Keep() { impl_->remove = false; }

}  // namespace sluice
