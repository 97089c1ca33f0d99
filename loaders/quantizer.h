// Rows of a checkpoint become rows of codes: kept to the bit, or rounded to nearest.
#ifndef SLUICE_LOADERS_QUANTIZER_H_
#define SLUICE_LOADERS_QUANTIZER_H_

#include <cstdint>

#include "formats/status.h"
#include "formats/tile_layout.h"
#include "loaders/checkpoint.h"

namespace sluice {

// The weight type that holds rows of a source type without loss.
WeightType TypeThatKeeps(SourceType type);
// The same for a tensor; float32 if something is added to its values.
WeightType TypeThatKeeps(const SourceTensor& tensor);

// Copies the codes of one source row. REQUIRES: layout.type == TypeThatKeeps(type).
void KeepRow(SourceType type, const std::byte* row, const TileLayout& layout, const RowCodes& out);

// Whether all values of a kept row are finite: its floats, or the scales and minima of its blocks.
bool IsFinite(const TileLayout& layout, const RowCodes& kept);

// Rounds one row to the layout's type. Float kinds: nearest, ties to even. Quantized kinds, for
// each group: the scale (and offset) with the least squared error among the one that spans the
// group's range and some smaller ones, integers to nearest. Errors, without context: kCorrupt for a
// value that is not finite, kUnsupported for one that f16 cannot hold and for the types that only
// hold what GGUF files bring (int5 and the K types).
Status QuantizeRow(const float* row /* [cols] */, const TileLayout& layout, const RowCodes& out);

// kCorrupt that names the first value that is not finite; ok if there is none.
Status RefuseInfinite(const float* row /* [cols] */, uint64_t cols);

}  // namespace sluice

#endif  // SLUICE_LOADERS_QUANTIZER_H_
