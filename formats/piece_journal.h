// Which pieces of a file that is being written are finished (FORMAT.md, "Writing"): the hash of
// every chunk, in a small file beside it, so that a later run can go on after any end of this one.
#ifndef SLUICE_FORMATS_PIECE_JOURNAL_H_
#define SLUICE_FORMATS_PIECE_JOURNAL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/output_file.h"
#include "formats/status.h"

namespace sluice {

class PieceJournal {
 public:
  // What the file is made of, and what it shall become. Two runs may share a journal if both agree.
  struct Identity {
    uint64_t source = 0;
    uint64_t plan = 0;  // hash of the metadata, without the hashes of chunks
    uint64_t num_chunks = 0;
    bool operator==(const Identity&) const = default;
  };

  static uint64_t SizeBytes(uint64_t num_chunks);

  // The hashes that the journal at `path` recorded, 0 for chunks that are missing; nothing if there
  // is no whole journal with this identity. Changes nothing.
  static std::optional<std::vector<uint64_t>> Read(const std::string& path,
                                                   const Identity& identity);

  // Opens the journal at `path`. With `resume`, `hashes` gets what an earlier run recorded, 0 for
  // chunks that it did not; without, or if there is no whole journal, it begins anew: all are 0.
  // Whoever calls this holds the lock of the file that the journal is about.
  // Errors: kInvalidArgument (the earlier run was about something else), kIo.
  static Result<std::unique_ptr<PieceJournal>> Open(FileSystem* files, const std::string& path,
                                                    const Identity& identity, bool resume,
                                                    std::vector<uint64_t>* hashes);

  // Records the hashes of chunks from `first_chunk` on. Any thread; not the same chunks at once.
  Status Record(uint64_t first_chunk, std::span<const uint64_t> hashes);
  Status Sync() { return file_->Sync(); }

 private:
  explicit PieceJournal(std::unique_ptr<OutputFile> file) : file_(std::move(file)) {}
  std::unique_ptr<OutputFile> file_;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_PIECE_JOURNAL_H_
