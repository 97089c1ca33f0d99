// A .sluice file: as it is, with its checksums repaired (anybody can make a file with right ones),
// and expanded from a compact form. What is accepted must be consistent.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/sluice_file.h"
#include "formats/sluice_records.h"
#include "loaders/architecture.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;
using Bytes = std::vector<std::byte>;

void Require(bool promise) {
  if (!promise) std::abort();
}

// The pieces lie one behind the other to the end of the file, and those of a tensor hold its rows.
void CheckCatalogue(const SluiceFile& file) {
  uint64_t end = file.metadata_size_bytes();
  for (const PieceEntry& piece : file.pieces()) {
    Require(piece.offset_bytes == end);
    Require(piece.size_bytes > 0 && piece.size_bytes <= kSluiceMaxPieceBytes);
    Require(piece.tensor < file.tensors().size());
    end += piece.size_bytes;
  }
  Require(end == file.source().size_bytes());
  for (TensorId id = 0; id < file.tensors().size(); ++id) {
    const TensorEntry& tensor = file.tensors()[id];
    Require(file.Find(tensor.name) == id);
    Require(tensor.group < file.groups().size());
    uint64_t rows = 0, bytes = 0;
    for (const PieceEntry& piece : file.PiecesOf(id)) {
      Require(piece.tensor == id && piece.row_begin == rows);
      rows += piece.row_count;
      bytes += piece.size_bytes;
    }
    Require(rows == tensor.layout.rows);
    Require(tensor.layout.size_bytes <= bytes);
  }
}

// As `sluice verify` and the loading of a model use it.
void CheckUse(const SluiceFile& file) {
  Bytes bytes;
  for (PieceId id = 0; id < file.pieces().size(); ++id) {
    bytes.resize(file.pieces()[id].size_bytes);
    Require(file.source().ReadAt(file.pieces()[id].offset_bytes, bytes).ok());
    const Status status = file.VerifyPiece(id, bytes);
    Require(status.ok() || status.code() == ErrorCode::kCorrupt);
  }
  Require(file.config().Validate().ok());
  if (file.config().num_layers <= 64) (void)DescribeModel(file.config());
}

void ReadAndCheck(std::span<const std::byte> bytes) {
  const MeasuredInput measured(bytes.size());
  Result<std::shared_ptr<const SluiceFile>> file =
      SluiceFile::Parse(std::make_unique<MemoryBytes>(bytes));
  if (!file.ok()) {
    Require(!file.status().message().empty());
    Require(file.status().message().find('\n') == std::string::npos);
    return;
  }
  CheckCatalogue(**file);
  CheckUse(**file);
}

// Header and metadata agree with their checksums afterwards. REQUIRES: a whole header.
void RepairChecksums(Bytes* file) {
  HeaderRecord header;
  std::memcpy(&header, file->data(), sizeof(header));
  if (header.metadata_size >= kSluiceHeaderBytes && header.metadata_size <= file->size()) {
    header.metadata_hash = HashBytes(
        std::span(*file).subspan(kSluiceHeaderBytes, header.metadata_size - kSluiceHeaderBytes));
  }
  header.header_hash = HashBytes(std::as_bytes(std::span(&header, 1)).first(504));
  std::memcpy(file->data(), &header, sizeof(header));
}

// The compact form of a seed: metadata without its padding, then the number of pages of zeros that
// follow it. A mutation of it hits something more often than one of a file that is mostly padding.
Bytes Expanded(std::span<const std::byte> compact) {
  const auto pages = std::to_integer<uint64_t>(compact.back());
  Bytes file(compact.begin(), compact.end() - 1);
  file.resize((file.size() + kSluiceAlignment - 1) / kSluiceAlignment * kSluiceAlignment);
  HeaderRecord header;
  std::memcpy(&header, file.data(), sizeof(header));
  header.metadata_size = file.size();
  header.file_size = file.size() + pages * kSluiceAlignment;
  std::memcpy(file.data(), &header, sizeof(header));
  file.resize(header.file_size);
  return file;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  ReadAndCheck(bytes);
  if (size <= kSluiceHeaderBytes) return 0;
  Bytes repaired(bytes.begin(), bytes.end());
  RepairChecksums(&repaired);
  ReadAndCheck(repaired);
  Bytes expanded = Expanded(bytes);
  RepairChecksums(&expanded);
  ReadAndCheck(expanded);
  return 0;
}
