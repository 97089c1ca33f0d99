// How much memory a conversion takes, and for what.
#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "formats/checked.h"
#include "formats/mapped_file.h"
#include "loaders/convert_pipeline.h"

namespace sluice {
namespace {

constexpr uint64_t kProgramBytes = uint64_t{16} << 20;  // code, stacks, the allocator
constexpr uint64_t kSliceBytes = uint64_t{4} << 20;
constexpr uint64_t kSmallestSliceBytes = uint64_t{512} << 10;
constexpr int kPiecesBehind = 3;  // that wait for the disk

// The largest of everything, over all tensors.
struct Needs {
  uint64_t piece_bytes = 0;
  uint64_t tile_source_bytes = 0;  // rows of one tile as they lie in the source
  uint64_t worker_bytes = 0;
  uint64_t reorder_row_bytes = 0;
  uint64_t metadata_bytes = 0;
};

Needs NeedsOf(const Checkpoint& checkpoint, const SluiceWriter& writer) {
  Needs needs;
  for (const PieceEntry& piece : writer.pieces()) {
    const TileLayout& layout = writer.LayoutOf(piece.tensor);
    const SourceTensor& source = *checkpoint.Find(writer.NameOf(piece.tensor));
    const uint64_t row_bytes = SourceRowBytes(source.type, source.cols);
    needs.piece_bytes = std::max<uint64_t>(needs.piece_bytes, piece.size_bytes);
    needs.tile_source_bytes = std::max(
        needs.tile_source_bytes, std::min<uint64_t>(layout.tile_rows, source.rows) * row_bytes);
    needs.worker_bytes =
        std::max(needs.worker_bytes, layout.padded_cols * 8 + layout.groups_per_row() * 8);
    if (!source.row_order.empty()) {
      needs.reorder_row_bytes = std::max(needs.reorder_row_bytes, row_bytes);
    }
  }
  // In the checkpoint, in the plan, in the writer, and while the writer finishes.
  needs.metadata_bytes =
      4 * (checkpoint.tokenizer_json().size() + checkpoint.chat_template().size()) +
      writer.pieces().size() * 4 * sizeof(PieceEntry) + checkpoint.tensors().size() * 1024;
  return needs;
}

uint64_t TotalBytes(const ConvertBuffers& buffers, const Needs& needs) {
  const uint64_t reorder_bytes = kReorderedRows * needs.reorder_row_bytes;
  return kProgramBytes + needs.metadata_bytes + reorder_bytes + kSluiceChunkBytes +
         static_cast<uint64_t>(buffers.workers) * needs.worker_bytes +
         static_cast<uint64_t>(buffers.slices) * (buffers.slice_bytes + 2 * kDirectAlignment) +
         static_cast<uint64_t>(buffers.pieces) * buffers.piece_bytes;
}

// What can best be spared goes first. False: nothing is left to go.
bool TakeLess(ConvertBuffers* buffers, uint64_t smallest_slice_bytes) {
  if (buffers->slices > buffers->workers + 1) {
    --buffers->slices;
  } else if (buffers->pieces > 3) {
    --buffers->pieces;
  } else if (buffers->slice_bytes > smallest_slice_bytes) {
    buffers->slice_bytes = std::max(buffers->slice_bytes / 2, smallest_slice_bytes);
  } else if (buffers->workers > 1) {
    --buffers->workers;
  } else if (buffers->pieces > 1) {
    --buffers->pieces;
  } else if (buffers->slices > 1) {
    --buffers->slices;
  } else {
    return false;
  }
  return true;
}

}  // namespace

Result<ConvertBuffers> PlanConvertBuffers(const Checkpoint& checkpoint, const SluiceWriter& writer,
                                          const ConvertOptions& options) {
  const Needs needs = NeedsOf(checkpoint, writer);
  const unsigned processors = std::max(std::thread::hardware_concurrency(), 1u);
  ConvertBuffers buffers;
  buffers.workers = options.threads > 0 ? options.threads : static_cast<int>(processors);
  buffers.slices = 2 * buffers.workers + 2;
  buffers.slice_bytes = std::max(kSliceBytes, needs.tile_source_bytes);
  buffers.piece_bytes = needs.piece_bytes;
  const uint64_t filled =
      CeilDiv(static_cast<uint64_t>(buffers.slices) * kSliceBytes, uint64_t{kSluiceMaxPieceBytes});
  buffers.pieces = static_cast<int>(filled) + 1 + kPiecesBehind;
  const uint64_t smallest_slice_bytes = std::max(kSmallestSliceBytes, needs.tile_source_bytes);
  for (;;) {
    buffers.total_bytes = TotalBytes(buffers, needs);
    if (buffers.total_bytes <= options.max_ram_bytes) return buffers;
    if (!TakeLess(&buffers, smallest_slice_bytes)) {
      return Status(ErrorCode::kDoesNotFit,
                    fmt::format("conversion needs {} bytes of memory, --max-ram allows {}",
                                buffers.total_bytes, options.max_ram_bytes));
    }
  }
}

}  // namespace sluice
