// sluice verify: every checksum of a .sluice file.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "formats/sluice_file.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/progress.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxReported = 100;

struct Options {
  std::string file;
  bool quiet = false;
};

struct Counts {
  uint64_t chunks = 0;
  uint64_t bad = 0;
};

// Reports what is wrong, one line of stdout each, kMaxReported of them.
class Reporter {
 public:
  explicit Reporter(Progress* bar) : bar_(bar) {}

  Status Add(const Status& wrong) {
    if (++count_ > kMaxReported) return Status();
    bar_->Clear();
    return WriteStdout(OnOneLine(wrong.message()) + "\n");
  }

 private:
  Progress* bar_;
  uint64_t count_ = 0;
};

// Compares each chunk of a piece. One that cannot be read counts as wrong.
Status CheckPiece(const SluiceFile& file, PieceId id, std::span<std::byte> buffer, Counts* counts,
                  Reporter* reporter) {
  const PieceEntry& piece = file.pieces()[id];
  for (uint64_t begin = 0, chunk = 0; begin < piece.size_bytes;
       begin += kSluiceChunkBytes, ++chunk) {
    const std::span<std::byte> bytes =
        buffer.first(std::min(kSluiceChunkBytes, piece.size_bytes - begin));
    Status status = file.source().ReadAt(piece.offset_bytes + begin, bytes);
    if (status.ok()) status = file.VerifyChunk(id, chunk, bytes);
    ++counts->chunks;
    if (status.ok()) continue;
    ++counts->bad;
    if (Status s = reporter->Add(status); !s.ok()) return s;
  }
  return Status();
}

Result<Counts> CheckAllPieces(const SluiceFile& file, bool quiet) {
  uint64_t total_bytes = 0, done_bytes = 0;
  for (const PieceEntry& piece : file.pieces()) total_bytes += piece.size_bytes;
  std::vector<std::byte> buffer(kSluiceChunkBytes);
  Progress bar("verifying", Progress::Unit::kBytes, quiet);
  Reporter reporter(&bar);
  Counts counts;
  for (PieceId id = 0; id < file.pieces().size(); ++id) {
    if (Interrupted()) return InterruptedStatus();
    if (Status s = CheckPiece(file, id, buffer, &counts, &reporter); !s.ok()) return s;
    done_bytes += file.pieces()[id].size_bytes;
    bar.Update(done_bytes, total_bytes, file.tensors()[file.pieces()[id].tensor].name);
  }
  return counts;
}

Status Verify(const Options& options) {
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(options.file);
  if (!file.ok()) return file.status();
  Result<Counts> counts = CheckAllPieces(**file, options.quiet);
  if (!counts.ok()) return counts.status();
  if (counts->bad > 0) {
    return Status(
        ErrorCode::kCorrupt,
        fmt::format("{}: {} of {} chunks are wrong{}", options.file, counts->bad, counts->chunks,
                    counts->bad > kMaxReported ? ", the first 100 are listed" : ""));
  }
  return WriteStdout(
      fmt::format("{}: metadata, {} tensors and {} chunks agree with their checksums\n",
                  options.file, (*file)->tensors().size(), counts->chunks));
}

}  // namespace

void AddVerifyVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      cli->AddVerb("verify", "Compares a .sluice file with all of its checksums",
                   "  sluice verify model.sluice\n", [options] { return Verify(*options); });
  verb->add_option("FILE", options->file, "A .sluice file")->required();
  AddQuietOption(verb, &options->quiet);
}

}  // namespace sluice
