#include "loaders/convert_pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <system_error>
#include <thread>
#include <vector>

#include "formats/checked.h"
#include "loaders/convert_row.h"
#include "loaders/work_queue.h"

namespace sluice {
namespace {

struct PieceBuffer {
  std::unique_ptr<std::byte[]> bytes;
  PieceId id = 0;
  uint64_t size_bytes = 0;  // of its tiles
  std::atomic<uint64_t> slices_left = 0;
};

struct SliceBuffer {
  std::unique_ptr<std::byte[]> bytes;
  PieceBuffer* piece = nullptr;
  uint64_t first_row = 0;  // of the piece
  uint64_t row_count = 0;
};

class Pipeline {
 public:
  Pipeline(const Checkpoint& checkpoint, SluiceWriter* writer, const ConvertOptions& options,
           const ConvertBuffers& buffers)
      : checkpoint_(checkpoint),
        writer_(writer),
        options_(options),
        slice_bytes_(buffers.slice_bytes),
        pieces_(static_cast<size_t>(buffers.pieces)),
        slices_(static_cast<size_t>(buffers.slices)) {
    for (PieceBuffer& piece : pieces_) {
      piece.bytes = std::make_unique_for_overwrite<std::byte[]>(buffers.piece_bytes);
      free_pieces_.Push(&piece);
    }
    for (SliceBuffer& slice : slices_) {
      slice.bytes = std::make_unique_for_overwrite<std::byte[]>(buffers.slice_bytes);
      free_slices_.Push(&slice);
    }
  }

  Status Run(int workers) {
    std::vector<std::thread> threads;
    std::thread writer;
    try {
      writer = std::thread([this] { Guarded([this] { WriteBehind(); }); });
      for (int i = 0; i < workers; ++i) {
        threads.emplace_back([this] { Guarded([this] { Quantize(); }); });
      }
      ReadAhead();
    } catch (const std::system_error& error) {
      Fail(Status(ErrorCode::kOutOfMemory, fmt::format("no thread: {}", error.what())));
    } catch (const std::bad_alloc&) {
      Fail(Status(ErrorCode::kOutOfMemory, "no memory to convert with"));
    }
    ready_slices_.Close();
    for (std::thread& thread : threads) thread.join();
    full_pieces_.Close();
    if (writer.joinable()) writer.join();
    return first_error_;
  }

 private:
  template <typename Work>
  void Guarded(const Work& work) {
    try {
      work();
    } catch (const std::bad_alloc&) {
      Fail(Status(ErrorCode::kOutOfMemory, "no memory to convert with"));
    }
  }

  void ReadAhead() {
    for (PieceId id = 0; id < writer_->pieces().size() && !stopped_; ++id) {
      if (options_.resume && writer_->HasPiece(id)) {
        Advance(id, writer_->pieces()[id].row_count);
      } else if (!ReadPiece(id)) {
        return;
      }
    }
  }

  bool ReadPiece(PieceId id) {
    const PieceEntry& entry = writer_->pieces()[id];
    const TileLayout& layout = writer_->LayoutOf(entry.tensor);
    const SourceTensor& source = SourceOf(id);
    const uint64_t row_bytes = SourceRowBytes(source.type, source.cols);
    const uint64_t tile_bytes = layout.tile_rows * row_bytes;
    const uint64_t step =
        std::max<uint64_t>(1, slice_bytes_ / tile_bytes) * uint64_t{layout.tile_rows};
    PieceBuffer* piece = free_pieces_.Pop();
    if (piece == nullptr) return false;
    piece->id = id;
    piece->size_bytes = CeilDiv(entry.row_count, layout.tile_rows) * layout.tile_bytes;
    piece->slices_left = CeilDiv(entry.row_count, step);
    std::memset(piece->bytes.get(), 0, piece->size_bytes);
    for (uint64_t row = 0; row < entry.row_count; row += step) {
      SliceBuffer* slice = free_slices_.Pop();
      if (slice == nullptr) return false;
      slice->piece = piece;
      slice->first_row = row;
      slice->row_count = std::min(step, entry.row_count - row);
      const Status status =
          checkpoint_.ReadRows(source, entry.row_begin + row, slice->row_count,
                               std::span(slice->bytes.get(), slice->row_count * row_bytes));
      if (!status.ok()) {
        Fail(status);
        return false;
      }
      ready_slices_.Push(slice);
    }
    return true;
  }

  void Quantize() {
    while (SliceBuffer* slice = ready_slices_.Pop()) {
      PieceBuffer* piece = slice->piece;
      const uint64_t row_count = slice->row_count;
      const Status status = ConvertSlice(*slice);
      free_slices_.Push(slice);
      if (!status.ok()) return Fail(status);
      Advance(piece->id, row_count);
      if (--piece->slices_left == 0) full_pieces_.Push(piece);
    }
  }

  void WriteBehind() {
    while (PieceBuffer* piece = full_pieces_.Pop()) {
      const Status status =
          writer_->WritePiece(piece->id, std::span(piece->bytes.get(), piece->size_bytes));
      if (!status.ok()) return Fail(status);
      free_pieces_.Push(piece);
    }
  }

  Status ConvertSlice(const SliceBuffer& slice) const {
    const PieceEntry& entry = writer_->pieces()[slice.piece->id];
    const TileLayout& layout = writer_->LayoutOf(entry.tensor);
    const SourceTensor& source = SourceOf(slice.piece->id);
    const uint64_t row_bytes = SourceRowBytes(source.type, source.cols);
    RowConverter converter(source, layout);
    for (uint64_t r = 0; r < slice.row_count; ++r) {
      const uint64_t row = slice.first_row + r;
      std::byte* tile = slice.piece->bytes.get() + row / layout.tile_rows * layout.tile_bytes;
      const Status status = converter.Convert(slice.bytes.get() + r * row_bytes,
                                              static_cast<uint32_t>(row % layout.tile_rows), tile);
      if (!status.ok()) {
        return status.WithContext(
            fmt::format("tensor '{}': row {}", source.file_name, entry.row_begin + row));
      }
    }
    return Status();
  }

  const SourceTensor& SourceOf(PieceId id) const {
    return *checkpoint_.Find(writer_->NameOf(writer_->pieces()[id].tensor));
  }

  // Rows of a piece are done.
  void Advance(PieceId id, uint64_t row_count) {
    const SourceTensor& source = SourceOf(id);
    const std::lock_guard lock(progress_mutex_);
    done_bytes_ += row_count * SourceRowBytes(source.type, source.cols);
    if (stopped_ || !options_.progress) return;
    if (!options_.progress({done_bytes_, checkpoint_.size_bytes(), source.name})) {
      Fail(Status(ErrorCode::kCancelled, "the conversion was cancelled"));
    }
  }

  // Ends all threads; the first error stays.
  void Fail(const Status& status) {
    const std::lock_guard lock(error_mutex_);
    if (first_error_.ok()) first_error_ = status;
    stopped_ = true;
    free_slices_.Stop();
    ready_slices_.Stop();
    free_pieces_.Stop();
    full_pieces_.Stop();
  }

  const Checkpoint& checkpoint_;
  SluiceWriter* writer_;
  const ConvertOptions& options_;
  const uint64_t slice_bytes_;
  std::vector<PieceBuffer> pieces_;
  std::vector<SliceBuffer> slices_;
  WorkQueue<PieceBuffer> free_pieces_, full_pieces_;
  WorkQueue<SliceBuffer> free_slices_, ready_slices_;
  std::atomic<bool> stopped_ = false;
  std::mutex progress_mutex_;
  uint64_t done_bytes_ = 0;
  std::mutex error_mutex_;
  Status first_error_;
};

}  // namespace

Status ConvertPieces(const Checkpoint& checkpoint, SluiceWriter* writer,
                     const ConvertOptions& options, const ConvertBuffers& buffers) {
  try {
    Pipeline pipeline(checkpoint, writer, options, buffers);
    return pipeline.Run(buffers.workers);
  } catch (const std::bad_alloc&) {
    return Status(ErrorCode::kOutOfMemory,
                  fmt::format("no memory to convert with: {} bytes", buffers.total_bytes));
  }
}

}  // namespace sluice
