// sluice verify: every checksum of a .sluice file; of a checkpoint, which has none, everything that
// can be checked without.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "formats/sluice_file.h"
#include "loaders/checkpoint.h"
#include "tools/cli.h"
#include "tools/interrupt.h"
#include "tools/model_cache.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/progress.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxReported = 100;
constexpr uint64_t kReadBytes = 4 << 20;

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

Status VerifySluiceFile(const Options& options) {
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

// The first value of a row that is no finite number, or cols.
uint64_t FirstNotFinite(std::span<const float> row) {
  const auto wrong =
      std::find_if_not(row.begin(), row.end(), [](float x) { return std::isfinite(x); });
  return static_cast<uint64_t>(wrong - row.begin());
}

// Reads all rows. Returns what is wrong first: the tensor cannot be used, wherever else it is.
Status CheckTensor(const Checkpoint& checkpoint, const SourceTensor& tensor) {
  const uint64_t row_bytes = SourceRowBytes(tensor.type, tensor.cols);
  const uint64_t rows = std::clamp<uint64_t>(kReadBytes / row_bytes, 1, tensor.rows);
  std::vector<std::byte> bytes(rows * row_bytes);
  std::vector<float> values(tensor.cols);
  for (uint64_t begin = 0; begin < tensor.rows; begin += rows) {
    if (Interrupted()) return InterruptedStatus();
    const uint64_t count = std::min(rows, tensor.rows - begin);
    const std::span<std::byte> part = std::span(bytes).first(count * row_bytes);
    if (Status s = checkpoint.ReadRows(tensor, begin, count, part); !s.ok()) return s;
    for (uint64_t row = 0; row < count; ++row) {
      DecodeSourceRow(tensor.type, part.data() + row * row_bytes, tensor.cols, values.data());
      const uint64_t col = FirstNotFinite(values);
      if (col == tensor.cols) continue;
      return Status(ErrorCode::kCorrupt,
                    fmt::format("tensor {}: row {}, column {} is {}", tensor.file_name, begin + row,
                                col, values[col]));
    }
  }
  return Status();
}

// Structure and shapes are what Open checks.
Status VerifyCheckpoint(const Options& options) {
  Result<Checkpoint> checkpoint = Checkpoint::Open(options.file);
  if (!checkpoint.ok()) return checkpoint.status();
  Progress bar("verifying", Progress::Unit::kBytes, options.quiet);
  Reporter reporter(&bar);
  uint64_t bad = 0, done_bytes = 0;
  for (const SourceTensor& tensor : checkpoint->tensors()) {
    const Status wrong = CheckTensor(*checkpoint, tensor);
    if (wrong.code() == ErrorCode::kCancelled) return wrong;
    if (!wrong.ok()) {
      ++bad;
      if (Status s = reporter.Add(wrong); !s.ok()) return s;
    }
    done_bytes += tensor.rows * SourceRowBytes(tensor.type, tensor.cols);
    bar.Update(done_bytes, checkpoint->size_bytes(), tensor.name);
  }
  const size_t total = checkpoint->tensors().size();
  if (bad > 0) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{}: {} of {} tensors are wrong{}", options.file, bad, total,
                              bad > kMaxReported ? ", the first 100 are listed" : ""));
  }
  return WriteStdout(
      fmt::format("{}: configuration, tokenizer and {} tensors fit together, and all values can be "
                  "read and are finite; "
                  "checkpoints have no checksums\n",
                  options.file, total));
}

// A damaged .sluice file is to be reported as such.
Status Verify(const Options& options) {
  Result<bool> is_sluice = IsSluiceFile(options.file);
  if (!is_sluice.ok()) return is_sluice.status();
  if (*is_sluice || options.file.ends_with(".sluice")) return VerifySluiceFile(options);
  return VerifyCheckpoint(options);
}

}  // namespace

void AddVerifyVerb(Cli* cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = cli->AddVerb(
      "verify", "Compares a .sluice file with all of its checksums, or reads all of a checkpoint",
      "  sluice verify model.sluice\n"
      "  sluice verify model.gguf\n",
      [options] { return Verify(*options); });
  AddTextOption(verb, "FILE", &options->file,
                "A .sluice file, a GGUF file (of several, any), or a directory with safetensors")
      .Required();
  AddQuietOption(verb, &options->quiet);
}

}  // namespace sluice
