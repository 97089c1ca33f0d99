#include "formats/sluice_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "formats/checked.h"
#include "formats/quote.h"
#include "formats/sluice_records.h"
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the widest registers that there are
#endif

namespace sluice {
namespace {

template <typename Record>
Record LoadRecord(std::span<const std::byte> records, uint64_t index) {
  Record record;
  std::memcpy(&record, records.data() + index * sizeof(Record), sizeof(Record));
  return record;
}

bool AllZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

uint64_t HashBytes(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Result<std::shared_ptr<const SluiceFile>> SluiceFile::Open(const std::string& path) {
  Result<std::unique_ptr<ReadOnlyFile>> opened = ReadOnlyFile::Open(path);
  if (!opened.ok()) return opened.status();
  const ReadOnlyFile* disk_file = opened->get();
  Result<std::shared_ptr<const SluiceFile>> file = Parse(std::move(*opened));
  if (!file.ok()) return file;
  const_cast<SluiceFile&>(**file).disk_file_ = disk_file;
  return file;
}

Result<std::shared_ptr<const SluiceFile>> SluiceFile::Parse(std::unique_ptr<ByteSource> source) {
  std::shared_ptr<SluiceFile> file(new SluiceFile());
  file->source_ = std::move(source);
  for (Status (SluiceFile::*step)() :
       {&SluiceFile::ReadHeader, &SluiceFile::ParseSections, &SluiceFile::ParseTensors,
        &SluiceFile::ParseGroups, &SluiceFile::ParsePieces}) {
    if (Status status = (file.get()->*step)(); !status.ok()) return status;
  }
  if (Status status = file->CheckTensorPieces(); !status.ok()) return status;
  if (Status status = file->CheckGroupExtents(); !status.ok()) return status;
  return std::shared_ptr<const SluiceFile>(std::move(file));
}

Status SluiceFile::Corrupt(const std::string& what) const {
  return Status(ErrorCode::kCorrupt, path() + ": " + what);
}

Status SluiceFile::ReadHeader() {
  const uint64_t actual_size = source_->size_bytes();
  std::byte bytes[kSluiceHeaderBytes];
  const uint64_t magic_bytes = std::min<uint64_t>(actual_size, sizeof(kSluiceMagic));
  if (Status status = source_->ReadAt(0, {bytes, magic_bytes}); !status.ok()) return status;
  if (std::memcmp(bytes, kSluiceMagic, magic_bytes) != 0) {
    return Corrupt("not a .sluice file (no magic at offset 0)");
  }
  if (actual_size < kSluiceHeaderBytes) {
    return Status(ErrorCode::kTruncated,
                  fmt::format("{}: {} bytes are less than a header of 512", path(), actual_size));
  }
  if (Status status = source_->ReadAt(0, bytes); !status.ok()) return status;
  HeaderRecord header;
  std::memcpy(&header, bytes, sizeof(header));
  // The version first: in another version the rest, hash included, may mean something else.
  if (header.version != kSluiceVersion) {
    // A damaged version and an honest other one look different only in the hash.
    const bool intact = header.header_hash == HashBytes({bytes, 504});
    return intact ? Status(ErrorCode::kUnsupported,
                           fmt::format("{}: format version {}; this program reads version {}",
                                       path(), header.version, kSluiceVersion))
                  : Corrupt("checksum of the header at offset 0 is wrong");
  }
  if (header.header_hash != HashBytes({bytes, 504})) {
    return Corrupt("checksum of the header at offset 0 is wrong");
  }
  if (const uint64_t unknown = header.required_features & ~kSluiceRequiredFeatures; unknown != 0) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: requires features {:#x} that this program does not know", path(),
                              unknown));
  }
  if (header.file_size > actual_size) {
    return Status(ErrorCode::kTruncated, fmt::format("{}: {} bytes of {} are there", path(),
                                                     actual_size, header.file_size));
  }
  if (header.file_size < actual_size) {
    return Corrupt(fmt::format("{} bytes follow the end at offset {}",
                               actual_size - header.file_size, header.file_size));
  }
  if (header.header_size != kSluiceHeaderBytes || header.alignment != kSluiceAlignment ||
      header.chunk_size != kSluiceChunkBytes || header.section_count > kMaxSections ||
      header.reserved != 0 || !AllZero(std::as_bytes(std::span(header.reserved_tail)))) {
    return Corrupt("header at offset 0 has a field out of range");
  }
  if (header.metadata_size < kSluiceAlignment || header.metadata_size % kSluiceAlignment != 0 ||
      header.metadata_size > header.file_size) {
    return Corrupt(fmt::format("metadata of {} bytes in a file of {}", header.metadata_size,
                               header.file_size));
  }
  metadata_.resize(header.metadata_size);
  if (Status status = source_->ReadAt(0, metadata_); !status.ok()) return status;
  const std::span<const std::byte> hashed = std::span(metadata_).subspan(kSluiceHeaderBytes);
  if (std::memcmp(metadata_.data(), bytes, kSluiceHeaderBytes) != 0 ||
      HashBytes(hashed) != header.metadata_hash) {
    return Corrupt("checksum of the metadata at offset 512 is wrong");
  }
  return Status();
}

Status SluiceFile::ParseSections() {
  HeaderRecord header;
  std::memcpy(&header, metadata_.data(), sizeof(header));
  uint64_t expected = kSluiceHeaderBytes;
  for (uint32_t i = 0; i < kMaxSections; ++i) {
    const SectionRecord& section = header.sections[i];
    if (i >= header.section_count) {
      if (section.kind != 0 || section.reserved != 0 || section.offset != 0 || section.size != 0) {
        return Corrupt(fmt::format("unused section {} is not zero", i));
      }
      continue;
    }
    uint64_t end = 0;
    if (section.kind == 0 || section.reserved != 0 || section.offset != expected ||
        !CheckedAdd(section.offset, section.size, &end) || end > metadata_.size()) {
      return Corrupt(fmt::format("section {} (kind {}) of {} bytes at offset {} is out of place", i,
                                 section.kind, section.size, section.offset));
    }
    for (const Section& other : sections_) {
      if (other.kind == section.kind) {
        return Corrupt(fmt::format("section kind {} is there twice", section.kind));
      }
    }
    sections_.push_back({section.kind, section.offset, section.size});
    expected = RoundUp(end, 8);  // cannot overflow: end <= metadata size, a multiple of 4096
    if (!AllZero(std::span(metadata_).subspan(end, std::min(expected, metadata_.size()) - end))) {
      return Corrupt(fmt::format("padding at offset {} is not zero", end));
    }
  }
  if (expected > metadata_.size() || !AllZero(std::span(metadata_).subspan(expected))) {
    return Corrupt(fmt::format("padding at offset {} is not zero", expected));
  }
  for (uint32_t kind : {kSectionConfig, kSectionNames, kSectionTensors, kSectionGroups,
                        kSectionPieces, kSectionChunkHashes}) {
    if (SectionBytes(kind).data() == nullptr) {
      return Corrupt(fmt::format("section kind {} is missing", kind));
    }
  }
  config_json_ = SectionText(kSectionConfig);
  tokenizer_json_ = SectionText(kSectionTokenizer);
  chat_template_ = SectionText(kSectionChatTemplate);
  provenance_json_ = SectionText(kSectionProvenance);
  Result<ModelConfig> config = ModelConfig::FromJson(config_json_);
  if (!config.ok()) return config.status().WithContext(path());
  config_ = std::move(*config);
  return Status();
}

std::span<const std::byte> SluiceFile::SectionBytes(uint32_t kind) const {
  for (const Section& section : sections_) {
    if (section.kind == kind) {
      return std::span(metadata_).subspan(section.offset_bytes, section.size_bytes);
    }
  }
  return {};
}

std::string_view SluiceFile::SectionText(uint32_t kind) const {
  const std::span<const std::byte> bytes = SectionBytes(kind);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Status SluiceFile::ParseTensors() {
  const std::string_view names = SectionText(kSectionNames);
  const std::span<const std::byte> records = SectionBytes(kSectionTensors);
  const uint64_t count = records.size() / sizeof(TensorRecord);
  if (count == 0 || records.size() % sizeof(TensorRecord) != 0 || count >= kNoIndex) {
    return Corrupt(fmt::format("table of tensors has {} bytes", records.size()));
  }
  tensors_.reserve(count);
  tensor_by_name_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    const auto record = LoadRecord<TensorRecord>(records, i);
    uint64_t name_end = 0;
    if (record.name_size == 0 || record.name_size > kSluiceMaxNameBytes ||
        !CheckedAdd(record.name_offset, record.name_size, &name_end) || name_end > names.size()) {
      return Corrupt(fmt::format("name of tensor {} is out of range", i));
    }
    TensorEntry tensor;
    tensor.name = names.substr(record.name_offset, record.name_size);
    const auto fail = [&](ErrorCode code, const std::string& what) {
      return Status(code, fmt::format("{}: tensor {}: {}", path(), Quoted(tensor.name), what));
    };
    if (record.layout_version != kSluiceLayoutVersion) {
      return fail(ErrorCode::kUnsupported,
                  fmt::format("layout version {} is not known", record.layout_version));
    }
    if (record.reserved != 0) return fail(ErrorCode::kCorrupt, "a reserved field is not zero");
    const WeightType type = {static_cast<WeightKind>(record.kind),
                             static_cast<WeightOffset>(record.offset_kind), record.group_size};
    if (!IsValid(type)) {
      return fail(ErrorCode::kUnsupported, fmt::format("type {}/{}/{} is not known", record.kind,
                                                       record.offset_kind, record.group_size));
    }
    const bool declared =
        (LoadRecord<HeaderRecord>(metadata_, 0).required_features & kSluiceFeatureGgufTypes) != 0;
    if (type.kind >= WeightKind::kInt5 && !declared) {
      return fail(ErrorCode::kCorrupt, fmt::format("type {} without required feature {:#x}",
                                                   WeightTypeName(type), kSluiceFeatureGgufTypes));
    }
    Result<TileLayout> layout = MakeTileLayout(type, record.rows, record.cols, record.tile_rows);
    if (!layout.ok()) return fail(layout.status().code(), layout.status().message());
    tensor.layout = *layout;
    if (record.group >= SectionBytes(kSectionGroups).size() / sizeof(GroupRecord)) {
      return fail(ErrorCode::kCorrupt, fmt::format("group {} does not exist", record.group));
    }
    const uint64_t pieces = SectionBytes(kSectionPieces).size() / sizeof(PieceRecord);
    uint64_t piece_end = 0;
    if (record.piece_count == 0 ||
        !CheckedAdd(record.first_piece, record.piece_count, &piece_end) || piece_end > pieces ||
        piece_end >= kNoIndex) {
      return fail(ErrorCode::kCorrupt, "its pieces are out of range");
    }
    tensor.group = record.group;
    tensor.first_piece = static_cast<PieceId>(record.first_piece);
    tensor.piece_count = static_cast<uint32_t>(record.piece_count);
    if (!tensor_by_name_.emplace(tensor.name, static_cast<TensorId>(i)).second) {
      return fail(ErrorCode::kCorrupt, "its name is there twice");
    }
    tensors_.push_back(tensor);
  }
  return Status();
}

Status SluiceFile::ParseGroups() {
  const std::span<const std::byte> records = SectionBytes(kSectionGroups);
  const uint64_t count = records.size() / sizeof(GroupRecord);
  if (count == 0 || records.size() % sizeof(GroupRecord) != 0) {
    return Corrupt(fmt::format("table of groups has {} bytes", records.size()));
  }
  groups_.reserve(count);
  uint64_t next_tensor = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto record = LoadRecord<GroupRecord>(records, i);
    uint64_t tensor_end = 0;
    if (record.kind >= kGroupKindCount || record.reserved != 0 ||
        record.first_tensor != next_tensor || record.tensor_count == 0 ||
        !CheckedAdd(record.first_tensor, record.tensor_count, &tensor_end) ||
        tensor_end > tensors_.size()) {
      return Corrupt(fmt::format("group {} has a field out of range", i));
    }
    for (uint64_t t = record.first_tensor; t < tensor_end; ++t) {
      if (tensors_[t].group != i) {
        return Corrupt(fmt::format("tensor {} is listed in group {} and says {}",
                                   Quoted(tensors_[t].name), i, tensors_[t].group));
      }
    }
    groups_.push_back({static_cast<GroupKind>(record.kind), record.layer, record.expert,
                       static_cast<TensorId>(record.first_tensor),
                       static_cast<uint32_t>(record.tensor_count), record.offset, record.size});
    next_tensor = tensor_end;
  }
  if (next_tensor != tensors_.size()) return Corrupt("tensors are in no group");
  return Status();
}

Status SluiceFile::ParsePieces() {
  const std::span<const std::byte> records = SectionBytes(kSectionPieces);
  const std::span<const std::byte> hashes = SectionBytes(kSectionChunkHashes);
  if (records.size() % sizeof(PieceRecord) != 0 || hashes.size() % sizeof(uint64_t) != 0) {
    return Corrupt("a table has a broken last record");
  }
  chunk_hashes_.resize(hashes.size() / sizeof(uint64_t));
  std::memcpy(chunk_hashes_.data(), hashes.data(), hashes.size());
  const uint64_t count = records.size() / sizeof(PieceRecord);
  pieces_.reserve(count);
  uint64_t next_offset = metadata_.size();
  uint64_t next_chunk = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const auto record = LoadRecord<PieceRecord>(records, i);
    uint64_t end = 0;
    if (record.offset != next_offset || record.size == 0 || record.size % kSluiceAlignment != 0 ||
        record.size > kSluiceMaxPieceBytes || !CheckedAdd(record.offset, record.size, &end) ||
        end > source_->size_bytes() || record.tensor >= tensors_.size() ||
        record.first_chunk != next_chunk) {
      return Corrupt(fmt::format("piece {} of {} bytes at offset {} is out of place", i,
                                 record.size, record.offset));
    }
    next_offset = end;
    next_chunk += CeilDiv(record.size, kSluiceChunkBytes);
    pieces_.push_back({record.offset, static_cast<uint32_t>(record.size),
                       static_cast<TensorId>(record.tensor), record.row_begin, record.row_count,
                       record.first_chunk});
  }
  if (next_offset != source_->size_bytes()) {
    return Corrupt(fmt::format("bytes from offset {} on are in no piece", next_offset));
  }
  if (next_chunk != chunk_hashes_.size()) {
    return Corrupt(fmt::format("{} chunk hashes for {} chunks", chunk_hashes_.size(), next_chunk));
  }
  return Status();
}

Status SluiceFile::CheckTensorPieces() const {
  uint64_t next_piece = 0;
  for (uint64_t t = 0; t < tensors_.size(); ++t) {
    const TensorEntry& tensor = tensors_[t];
    const auto fail = [&](const std::string& what) {
      return Corrupt(fmt::format("tensor {}: {}", Quoted(tensor.name), what));
    };
    if (tensor.first_piece != next_piece) return fail("its pieces are not the next ones");
    next_piece += tensor.piece_count;
    uint64_t next_row = 0;
    const uint64_t rows_per_piece = pieces_[tensor.first_piece].row_count;
    for (const PieceEntry& piece : PiecesOf(static_cast<TensorId>(t))) {
      const uint64_t tiles = CeilDiv(piece.row_count, tensor.layout.tile_rows);
      uint64_t bytes = 0;
      uint64_t padded = 0;
      if (piece.tensor != t || piece.row_begin != next_row || piece.row_count == 0 ||
          piece.row_begin % tensor.layout.tile_rows != 0 ||
          piece.row_count > tensor.layout.rows - piece.row_begin ||
          piece.row_count > rows_per_piece ||
          (piece.row_count < rows_per_piece &&
           piece.row_begin + piece.row_count != tensor.layout.rows) ||
          !CheckedMul(tiles, tensor.layout.tile_bytes, &bytes) ||
          !CheckedRoundUp(bytes, kSluiceAlignment, &padded) || padded != piece.size_bytes) {
        return fail(fmt::format("the piece at offset {} does not fit it", piece.offset_bytes));
      }
      next_row = piece.row_begin + piece.row_count;
    }
    if (next_row != tensor.layout.rows) {
      return fail(fmt::format("{} of {} rows are there", next_row, tensor.layout.rows));
    }
  }
  if (next_piece != pieces_.size()) return Corrupt("pieces belong to no tensor");
  return Status();
}

Status SluiceFile::CheckGroupExtents() const {
  for (uint64_t g = 0; g < groups_.size(); ++g) {
    const GroupEntry& group = groups_[g];
    const TensorEntry& first = tensors_[group.first_tensor];
    const TensorEntry& last = tensors_[group.first_tensor + group.tensor_count - 1];
    const uint64_t begin = pieces_[first.first_piece].offset_bytes;
    const PieceEntry& last_piece = pieces_[last.first_piece + last.piece_count - 1];
    if (group.offset_bytes != begin ||
        group.size_bytes != last_piece.offset_bytes + last_piece.size_bytes - begin) {
      return Corrupt(fmt::format("extent of group {} is not that of its pieces", g));
    }
  }
  return Status();
}

std::span<const PieceEntry> SluiceFile::PiecesOf(TensorId tensor) const {
  return std::span(pieces_).subspan(tensors_[tensor].first_piece, tensors_[tensor].piece_count);
}

TensorId SluiceFile::Find(std::string_view name) const {
  const auto found = tensor_by_name_.find(name);
  return found == tensor_by_name_.end() ? kNoIndex : found->second;
}

Status SluiceFile::VerifyPiece(PieceId id, std::span<const std::byte> bytes) const {
  for (uint64_t begin = 0; begin < bytes.size(); begin += kSluiceChunkBytes) {
    const uint64_t size = std::min(kSluiceChunkBytes, bytes.size() - begin);
    const Status status = VerifyChunk(id, begin / kSluiceChunkBytes, bytes.subspan(begin, size));
    if (!status.ok()) return status;
  }
  return Status();
}

Status SluiceFile::VerifyChunk(PieceId id, uint64_t chunk, std::span<const std::byte> bytes) const {
  const PieceEntry& piece = pieces_[id];
  if (HashBytes(bytes) == chunk_hashes_[piece.first_chunk + chunk]) return Status();
  return Corrupt(fmt::format("tensor {}: checksum of the {} bytes at offset {} is wrong",
                             Quoted(tensors_[piece.tensor].name), bytes.size(),
                             piece.offset_bytes + chunk * kSluiceChunkBytes));
}

}  // namespace sluice
