#include "formats/sluice_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "formats/checked.h"
#include "formats/sluice_records.h"

namespace sluice {
namespace {

Status IoError(const std::string& what, const std::string& path) {
  return Status(ErrorCode::kIo, fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
}

Status WriteAll(int fd, const std::string& path, uint64_t offset,
                std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return IoError(fmt::format("write of {} bytes at offset {}", bytes.size(), offset), path);
    }
    if (written == 0) {
      errno = ENOSPC;
      return IoError(fmt::format("write of {} bytes at offset {}", bytes.size(), offset), path);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return Status();
}

// Makes the rename itself durable.
Status SyncFolder(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) folder = ".";
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return IoError("open", folder.string());
  const int failed = fsync(fd);
  // Some file systems cannot sync a folder; the file itself is on disk by then.
  const Status status =
      failed != 0 && errno != EINVAL ? IoError("fsync", folder.string()) : Status();
  close(fd);
  return status;
}

uint64_t TilesPerPiece(const TileLayout& layout) {
  return kSluiceMaxPieceBytes / layout.tile_bytes;  // a tile is never larger than a piece
}

}  // namespace

struct SluiceWriter::Impl {
  std::string path;
  std::string partial_path;
  int fd = -1;
  bool finished = false;

  std::vector<std::string> sections;  // by index in section_kinds
  std::vector<uint32_t> section_kinds;
  std::vector<std::string> names;
  std::vector<TileLayout> layouts;
  std::vector<PieceEntry> pieces;
  std::vector<uint64_t> chunk_hashes;
  uint64_t metadata_size = 0;
  uint64_t file_size = 0;

  ~Impl() {
    if (fd >= 0) close(fd);
    if (!finished && !partial_path.empty()) unlink(partial_path.c_str());
  }

  Status Plan(const SluiceContents& contents);
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

Result<std::unique_ptr<SluiceWriter>> SluiceWriter::Create(const std::string& path,
                                                           const SluiceContents& contents) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  if (Status status = impl->Plan(contents); !status.ok()) return status;
  const std::string partial_path = path + ".partial";
  impl->fd = open(partial_path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (impl->fd < 0) return IoError("create", partial_path);
  impl->partial_path = partial_path;
  if (ftruncate(impl->fd, static_cast<off_t>(impl->file_size)) != 0) {
    return IoError(fmt::format("resize to {} bytes", impl->file_size), partial_path);
  }
  return std::unique_ptr<SluiceWriter>(new SluiceWriter(std::move(impl)));
}

std::span<const PieceEntry> SluiceWriter::pieces() const { return impl_->pieces; }
const TileLayout& SluiceWriter::LayoutOf(TensorId tensor) const { return impl_->layouts[tensor]; }
const std::string& SluiceWriter::NameOf(TensorId tensor) const { return impl_->names[tensor]; }
uint64_t SluiceWriter::file_size_bytes() const { return impl_->file_size; }

Status SluiceWriter::WritePiece(PieceId id, std::span<const std::byte> tiles) {
  const PieceEntry& piece = impl_->pieces[id];
  // Chunks are hashed with their padding; only the last one can have any.
  const uint64_t whole = tiles.size() / kSluiceChunkBytes * kSluiceChunkBytes;
  uint64_t chunk = piece.first_chunk;
  for (uint64_t begin = 0; begin < whole; begin += kSluiceChunkBytes) {
    impl_->chunk_hashes[chunk++] = HashBytes(tiles.subspan(begin, kSluiceChunkBytes));
  }
  if (whole < piece.size_bytes) {
    std::vector<std::byte> rest(piece.size_bytes - whole);
    std::copy(tiles.begin() + static_cast<ptrdiff_t>(whole), tiles.end(), rest.begin());
    impl_->chunk_hashes[chunk] = HashBytes(rest);
  }
  // The padding is a hole of the file, zero as it is.
  return WriteAll(impl_->fd, impl_->partial_path, piece.offset_bytes, tiles);
}

Status SluiceWriter::Finish() {
  Impl& impl = *impl_;
  if (Status s = WriteAll(impl.fd, impl.partial_path, 0, impl.Metadata()); !s.ok()) return s;
  if (fsync(impl.fd) != 0) return IoError("fsync", impl.partial_path);
  if (rename(impl.partial_path.c_str(), impl.path.c_str()) != 0) {
    return IoError("rename to " + impl.path, impl.partial_path);
  }
  impl.finished = true;
  return SyncFolder(impl.path);
}

}  // namespace sluice
