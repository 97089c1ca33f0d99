// The work of a conversion: one thread reads ahead, several quantize, one writes behind, with a
// fixed set of buffers between them. Private to loaders.
#ifndef SLUICE_LOADERS_CONVERT_PIPELINE_H_
#define SLUICE_LOADERS_CONVERT_PIPELINE_H_

#include <cstdint>

#include "formats/sluice_writer.h"
#include "formats/status.h"
#include "loaders/checkpoint.h"
#include "loaders/convert.h"

namespace sluice {

// A piece is converted in slices, runs of whole tiles, so that all workers share one piece and no
// more of the source is held than a few slices.
struct ConvertBuffers {
  int workers = 0;
  int slices = 0;
  uint64_t slice_bytes = 0;  // of the source
  int pieces = 0;
  uint64_t piece_bytes = 0;
  uint64_t total_bytes = 0;  // with the workers' scratch and what the process holds besides
};

// As much as serves the speed, at most options.max_ram_bytes in all.
// Errors: kDoesNotFit with what is needed at least.
Result<ConvertBuffers> PlanConvertBuffers(const Checkpoint& checkpoint, const SluiceWriter& writer,
                                          const ConvertOptions& options);

// Writes every piece of `writer` that it does not have. The first error ends it.
// Errors: those of Checkpoint::ReadRows and SluiceWriter::WritePiece; kCorrupt and kUnsupported
// (values that cannot be converted) with tensor and row; kCancelled; kOutOfMemory.
Status ConvertPieces(const Checkpoint& checkpoint, SluiceWriter* writer,
                     const ConvertOptions& options, const ConvertBuffers& buffers);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CONVERT_PIPELINE_H_
