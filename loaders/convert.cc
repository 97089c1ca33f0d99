#include "loaders/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "formats/checked.h"
#include "formats/sluice_writer.h"
#include "loaders/architecture.h"
#include "loaders/checkpoint.h"
#include "loaders/quantizer.h"
#include "loaders/weight_plan.h"

namespace sluice {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;  // of the source at a time and worker

// Scratch of one worker, all of it bounded by a piece and a row.
struct Worker {
  std::vector<std::byte> tiles;   // of the piece
  std::vector<std::byte> source;  // rows as they lie in the checkpoint
  std::vector<float> row;
  std::vector<uint32_t> values;
  std::vector<uint16_t> scales, offsets, super_scales, super_offsets;
};

uint64_t WorkerBytes(const TileLayout& layout, const SourceTensor& source) {
  const uint64_t row_bytes = SourceRowBytes(source.type, source.cols);
  return kSluiceMaxPieceBytes + std::max(kReadBytes, row_bytes) + layout.padded_cols * 8 +
         layout.groups_per_row() * 8 + kSluiceChunkBytes;
}

class Conversion {
 public:
  Conversion(const Checkpoint& checkpoint, SluiceWriter* writer, const ConvertOptions& options)
      : checkpoint_(checkpoint), writer_(writer), options_(options) {}

  Status Run(int threads) {
    std::vector<std::thread> workers;
    for (int i = 1; i < threads; ++i) workers.emplace_back([this] { ConvertPieces(); });
    ConvertPieces();
    for (std::thread& worker : workers) worker.join();
    return first_error_;
  }

 private:
  void ConvertPieces() {
    Worker worker;
    const uint64_t count = writer_->pieces().size();
    for (uint64_t i = next_piece_++; i < count && !stop_; i = next_piece_++) {
      const auto id = static_cast<PieceId>(i);
      const Status status = ConvertPiece(id, &worker);
      Report(id, status);
    }
  }

  void Report(PieceId id, Status status) {
    const std::lock_guard lock(mutex_);
    const PieceEntry& piece = writer_->pieces()[id];
    const std::string& name = writer_->NameOf(piece.tensor);
    if (status.ok()) {
      const SourceTensor& source = *checkpoint_.Find(name);
      done_bytes_ += piece.row_count * SourceRowBytes(source.type, source.cols);
      if (options_.progress && !options_.progress({done_bytes_, checkpoint_.size_bytes(), name})) {
        status = Status(ErrorCode::kCancelled, "the conversion was cancelled");
      }
    }
    if (!status.ok()) {
      if (first_error_.ok()) first_error_ = status;
      stop_ = true;
    }
  }

  Status ConvertPiece(PieceId id, Worker* worker) {
    const PieceEntry& piece = writer_->pieces()[id];
    const TileLayout& layout = writer_->LayoutOf(piece.tensor);
    const SourceTensor& source = *checkpoint_.Find(writer_->NameOf(piece.tensor));
    const uint64_t row_bytes = SourceRowBytes(source.type, source.cols);
    worker->tiles.assign(CeilDiv(piece.row_count, layout.tile_rows) * layout.tile_bytes,
                         std::byte{0});
    worker->row.resize(layout.cols);
    worker->values.resize(layout.cols);
    worker->scales.resize(layout.groups_per_row());
    worker->offsets.resize(layout.groups_per_row());
    worker->super_scales.resize(layout.num_super_blocks());
    worker->super_offsets.resize(layout.num_super_blocks());
    const uint64_t step = std::max<uint64_t>(1, kReadBytes / row_bytes);
    for (uint64_t done = 0; done < piece.row_count; done += step) {
      const uint64_t rows = std::min(step, piece.row_count - done);
      worker->source.resize(rows * row_bytes);
      Status status = checkpoint_.ReadRows(source, piece.row_begin + done, rows, worker->source);
      for (uint64_t r = 0; r < rows && status.ok(); ++r) {
        const uint64_t row = done + r;
        std::byte* tile = worker->tiles.data() + row / layout.tile_rows * layout.tile_bytes;
        status = ConvertRow(source, worker->source.data() + r * row_bytes, layout,
                            static_cast<uint32_t>(row % layout.tile_rows), tile, worker);
        if (!status.ok()) {
          status = status.WithContext(
              fmt::format("tensor '{}': row {}", source.file_name, piece.row_begin + row));
        }
      }
      if (!status.ok()) return status;
    }
    return writer_->WritePiece(id, worker->tiles);
  }

  static Status ConvertRow(const SourceTensor& source, const std::byte* row,
                           const TileLayout& layout, uint32_t row_in_tile, std::byte* tile,
                           Worker* worker) {
    const RowCodes codes = {worker->values.data(), worker->scales.data(), worker->offsets.data(),
                            worker->super_scales.data(), worker->super_offsets.data()};
    if (source.added == 0 && layout.type == TypeThatKeeps(source.type)) {
      KeepRow(source.type, row, layout, codes);
    } else {
      DecodeSourceRow(source.type, row, source.cols, worker->row.data());
      if (source.added != 0) {
        for (float& value : worker->row) value += source.added;
      }
      if (Status s = QuantizeRow(worker->row.data(), layout, codes); !s.ok()) return s;
    }
    PackRow(layout, row_in_tile, codes, tile);
    return Status();
  }

  const Checkpoint& checkpoint_;
  SluiceWriter* writer_;
  const ConvertOptions& options_;
  std::atomic<uint64_t> next_piece_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  uint64_t done_bytes_ = 0;
  Status first_error_;
};

std::string Provenance(const Checkpoint& checkpoint) {
  nlohmann::ordered_json json;
  json["source"] = checkpoint.description();
  json["writer"] = "sluice";
  // Texts from a checkpoint need not be UTF-8.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// As many workers as the memory allows; none: the bound is too small.
Result<int> WorkersWithin(const SluiceWriter& writer, const Checkpoint& checkpoint,
                          const ConvertOptions& options) {
  uint64_t worker_bytes = 0;
  for (const PieceEntry& piece : writer.pieces()) {
    worker_bytes = std::max(
        worker_bytes,
        WorkerBytes(writer.LayoutOf(piece.tensor), *checkpoint.Find(writer.NameOf(piece.tensor))));
  }
  const int wanted = options.threads > 0
                         ? options.threads
                         : static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
  const uint64_t affordable = options.max_ram_bytes / worker_bytes;
  if (affordable == 0) {
    return Status(ErrorCode::kDoesNotFit,
                  fmt::format("conversion needs {} bytes of memory, --max-ram allows {}",
                              worker_bytes, options.max_ram_bytes));
  }
  return static_cast<int>(std::min<uint64_t>(static_cast<uint64_t>(wanted), affordable));
}

}  // namespace

Result<ConvertReport> ConvertCheckpoint(const std::string& source_path,
                                        const std::string& output_path,
                                        const ConvertOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Result<Checkpoint> checkpoint = Checkpoint::Open(source_path);
  if (!checkpoint.ok()) return checkpoint.status();
  Result<ModelDescription> description = DescribeModel(checkpoint->config());
  if (!description.ok()) return description.status().WithContext(source_path);
  SluiceContents contents;
  contents.config = checkpoint->config();
  contents.tokenizer_json = checkpoint->tokenizer_json();
  contents.chat_template = checkpoint->chat_template();
  contents.provenance_json = Provenance(*checkpoint);
  contents.groups = PlanWeights(*description, options.quantization, [&](const std::string& name) {
    return TypeThatKeeps(*checkpoint->Find(name));
  });
  Result<std::unique_ptr<SluiceWriter>> writer = SluiceWriter::Create(output_path, contents);
  if (!writer.ok()) return writer.status();
  Result<int> workers = WorkersWithin(**writer, *checkpoint, options);
  if (!workers.ok()) return workers.status();
  Conversion conversion(*checkpoint, writer->get(), options);
  if (Status status = conversion.Run(*workers); !status.ok()) {
    return status.WithContext(source_path);
  }
  if (Status status = (*writer)->Finish(); !status.ok()) return status;
  ConvertReport report;
  report.source_bytes = checkpoint->size_bytes();
  report.file_bytes = (*writer)->file_size_bytes();
  report.tensors = checkpoint->tensors().size();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.description = checkpoint->description();
  return report;
}

}  // namespace sluice
