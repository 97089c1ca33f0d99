// sluice verify: every checksum of a .sluice file.
#include <fmt/format.h>

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

// The pieces that are wrong, one line of stdout each.
Result<uint64_t> CountBadPieces(const SluiceFile& file, bool quiet) {
  uint64_t total_bytes = 0, done_bytes = 0, bad = 0;
  for (const PieceEntry& piece : file.pieces()) total_bytes += piece.size_bytes;
  std::vector<std::byte> buffer(kSluiceMaxPieceBytes);
  Progress bar("verifying", Progress::Unit::kBytes, quiet);
  for (PieceId id = 0; id < file.pieces().size(); ++id) {
    if (Interrupted()) return InterruptedStatus();
    const PieceEntry& piece = file.pieces()[id];
    const std::span<std::byte> bytes(buffer.data(), piece.size_bytes);
    Status status = file.source().ReadAt(piece.offset_bytes, bytes);
    if (status.ok()) status = file.VerifyPiece(id, bytes);
    done_bytes += piece.size_bytes;
    bar.Update(done_bytes, total_bytes, file.tensors()[piece.tensor].name);
    if (status.ok()) continue;
    if (++bad > kMaxReported) continue;
    bar.Clear();
    if (Status s = WriteStdout(OnOneLine(status.message()) + "\n"); !s.ok()) return s;
  }
  return bad;
}

Status Verify(const Options& options) {
  Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(options.file);
  if (!file.ok()) return file.status();
  Result<uint64_t> bad = CountBadPieces(**file, options.quiet);
  if (!bad.ok()) return bad.status();
  const size_t pieces = (*file)->pieces().size();
  if (*bad > 0) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{}: {} of {} pieces are wrong{}", options.file, *bad, pieces,
                              *bad > kMaxReported ? ", the first 100 are listed" : ""));
  }
  return WriteStdout(
      fmt::format("{}: metadata, {} tensors and {} pieces agree with their "
                  "checksums\n",
                  options.file, (*file)->tensors().size(), pieces));
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
