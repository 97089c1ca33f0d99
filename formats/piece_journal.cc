#include "formats/piece_journal.h"

#include <cstring>

#include "formats/mapped_file.h"
#include "formats/sluice_file.h"

namespace sluice {
namespace {

constexpr char kMagic[8] = {'\x89', 'S', 'L', 'J', 'O', 'U', 'R', '\n'};
constexpr uint64_t kVersion = 1;

struct JournalHeader {
  char magic[8];
  uint64_t version;
  uint64_t source;
  uint64_t plan;
  uint64_t num_chunks;
  uint64_t hash;  // of the bytes before
};
static_assert(sizeof(JournalHeader) == 48);

JournalHeader HeaderOf(const PieceJournal::Identity& identity) {
  JournalHeader header = {{}, kVersion, identity.source, identity.plan, identity.num_chunks, 0};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.hash =
      HashBytes(std::as_bytes(std::span(&header, 1)).first(sizeof header - sizeof header.hash));
  return header;
}

// What the journal is about; nothing if it is not whole, as after a loss of power.
std::optional<PieceJournal::Identity> ReadHeader(const OutputFile& file) {
  JournalHeader header = {};
  if (!file.ReadAt(0, std::as_writable_bytes(std::span(&header, 1))).ok()) return std::nullopt;
  const PieceJournal::Identity identity = {header.source, header.plan, header.num_chunks};
  const JournalHeader expected = HeaderOf(identity);
  if (std::memcmp(&header, &expected, sizeof header) != 0) return std::nullopt;
  return identity;
}

}  // namespace

uint64_t PieceJournal::SizeBytes(uint64_t num_chunks) {
  return sizeof(JournalHeader) + num_chunks * sizeof(uint64_t);
}

std::optional<std::vector<uint64_t>> PieceJournal::Read(const std::string& path,
                                                        const Identity& identity) {
  const Result<std::string> bytes = ReadWholeFile(path, SizeBytes(identity.num_chunks));
  if (!bytes.ok() || bytes->size() != SizeBytes(identity.num_chunks)) return std::nullopt;
  const JournalHeader expected = HeaderOf(identity);
  if (std::memcmp(bytes->data(), &expected, sizeof expected) != 0) return std::nullopt;
  std::vector<uint64_t> hashes(identity.num_chunks);
  std::memcpy(hashes.data(), bytes->data() + sizeof expected, hashes.size() * sizeof(uint64_t));
  return hashes;
}

Result<std::unique_ptr<PieceJournal>> PieceJournal::Open(FileSystem* files, const std::string& path,
                                                         const Identity& identity, bool resume,
                                                         std::vector<uint64_t>* hashes) {
  hashes->assign(identity.num_chunks, 0);
  Result<std::unique_ptr<OutputFile>> file = OutputFile::Open(files, path);
  if (!file.ok()) return file.status();
  std::unique_ptr<PieceJournal> journal(new PieceJournal(*std::move(file)));
  const std::span<std::byte> table = std::as_writable_bytes(std::span(*hashes));
  if (resume) {
    const std::optional<Identity> earlier = ReadHeader(*journal->file_);
    if (earlier && *earlier != identity) {
      return Status(ErrorCode::kInvalidArgument,
                    path +
                        ": begun with another source, other options or another version; without "
                        "--resume it begins anew");
    }
    if (earlier && journal->file_->ReadAt(sizeof(JournalHeader), table).ok()) return journal;
    hashes->assign(identity.num_chunks, 0);
  }
  // All of it at once, so that recording never asks the disk for more space. The header comes last:
  // a journal with a header is whole.
  if (Status s = journal->file_->Resize(0); !s.ok()) return s;
  if (Status s = journal->file_->Reserve(SizeBytes(identity.num_chunks)); !s.ok()) return s;
  if (Status s = journal->file_->WriteAt(sizeof(JournalHeader), table); !s.ok()) return s;
  const JournalHeader header = HeaderOf(identity);
  Status s = journal->file_->WriteAt(0, std::as_bytes(std::span(&header, 1)));
  if (!s.ok()) return s;
  return journal;
}

Status PieceJournal::Record(uint64_t first_chunk, std::span<const uint64_t> hashes) {
  return file_->WriteAt(sizeof(JournalHeader) + first_chunk * sizeof(uint64_t),
                        std::as_bytes(hashes));
}

}  // namespace sluice
