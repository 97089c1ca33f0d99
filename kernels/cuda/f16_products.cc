#include "kernels/cuda/f16_products.h"

#include <algorithm>

#include "kernels/cuda/gpu_layout.h"

namespace sluice {
namespace {

constexpr int64_t kRowsTogether = 128;

int64_t CeilTo(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

int64_t PanelValues(int64_t rows, int64_t cols) {
  const int64_t width = PaddedF16Cols(cols);
  const int64_t tiles = std::max<int64_t>(1, kMostPanelValues / (width * kTileRows));
  return std::min(tiles * kTileRows, CeilTo(rows, kTileRows)) * width;
}

int64_t PanelRows(int64_t rows, int64_t cols, int64_t values) {
  const int64_t most = values / PaddedF16Cols(cols) / kTileRows * kTileRows;
  const int64_t padded = CeilTo(rows, kTileRows);
  const int64_t panels = (padded + most - 1) / most;
  const int64_t alike = CeilTo((padded + panels - 1) / panels, kTileRows);
  const int64_t rounded = CeilTo(alike, kRowsTogether);
  return std::min(rounded <= most ? rounded : alike, padded);
}

Status F16Products::Multiply(const MatmulArgs& args, const F16Activations& x,
                             CUstream_st* stream) const {
  if (args.tokens == 0) return Status();
  const Result<GpuLayout> layout = MakeGpuLayout(*args.layout);
  if (!layout.ok()) return layout.status();
  ShiftRowsArgs shift = {.y = args.y,
                         .y_stride = args.y_stride,
                         .rows = args.rows,
                         .bias = args.bias,
                         .exponents = x.exponents,
                         .down = true,
                         .keep_y = args.add_to_y,
                         .token_begin = 0,
                         .token_end = args.tokens};
  const bool add_to_y = args.add_to_y || args.bias != nullptr;
  if (add_to_y) ops_->shift_rows(shift, stream);
  const int64_t panel_rows = PanelRows(args.rows, layout->cols, panel_values_);
  for (int64_t row = 0; row < args.rows; row += panel_rows) {
    const int64_t rows = std::min(panel_rows, args.rows - row);
    ops_->unpack_f16({.layout = args.layout,
                      .tiles = args.tiles + row / kTileRows * layout->tile_bytes,
                      .num_tiles = (rows + kTileRows - 1) / kTileRows,
                      .out = panel_},
                     stream);
    const Status status = library_->Multiply({.w = panel_,
                                              .w_stride = x.padded_cols,
                                              .x = x.values,
                                              .x_stride = x.padded_cols,
                                              .y = args.y + row,
                                              .y_stride = args.y_stride,
                                              .rows = rows,
                                              .cols = x.padded_cols,
                                              .tokens = args.tokens,
                                              .add_to_y = add_to_y},
                                             stream);
    if (!status.ok()) return status;
  }
  shift.bias = nullptr;
  shift.down = false;
  shift.keep_y = true;
  ops_->shift_rows(shift, stream);
  return Status();
}

Status F16Products::Prepare(int64_t rows, int64_t cols, const F16Activations& x, int64_t tokens,
                            float* y, int64_t y_stride, CUstream_st* stream) const {
  const int64_t panel_rows = PanelRows(rows, cols, panel_values_);
  const int64_t last = rows - (rows - 1) / panel_rows * panel_rows;
  for (const int64_t some : {panel_rows, last}) {
    if (some > rows) continue;  // a matrix of less than its panel is the last one
    for (const bool add_to_y : {false, true}) {
      const Status status = library_->Multiply({.w = panel_,
                                                .w_stride = x.padded_cols,
                                                .x = x.values,
                                                .x_stride = x.padded_cols,
                                                .y = y,
                                                .y_stride = y_stride,
                                                .rows = some,
                                                .cols = x.padded_cols,
                                                .tokens = tokens,
                                                .add_to_y = add_to_y},
                                               stream);
      if (!status.ok()) return status;
    }
    if (some == last) break;
  }
  return Status();
}

}  // namespace sluice
