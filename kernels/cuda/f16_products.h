// Products of a prompt in f16 (--prefill f16): a panel of a matrix's rows is dequantized into
// scratch memory, cuBLASLt multiplies it with activations in f16, and the next panel follows.
#ifndef SLUICE_KERNELS_CUDA_F16_PRODUCTS_H_
#define SLUICE_KERNELS_CUDA_F16_PRODUCTS_H_

#include <cstddef>
#include <cstdint>

#include "formats/status.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/ops.h"

namespace sluice {

// What NVIDIA recommends for the newest GPUs that it is faster with (cuBLAS, section "cuBLAS
// workspace"); 4 MiB serve the others.
inline constexpr uint64_t kCublasLtWorkspaceBytes = uint64_t{32} << 20;
inline constexpr uint64_t kCublasLtWorkspaceAlignment = 256;

// f16 values of a panel at most, if that is one tile or more: 128 MiB. All matrices of a model of 8
// billion weights are one panel then, and the largest of 70 billion are four.
inline constexpr int64_t kMostPanelValues = int64_t{64} << 20;

// Values that a panel of that matrix needs: the whole of it, or as many tiles as kMostPanelValues
// allow.
int64_t PanelValues(int64_t rows, int64_t cols);

// Rows of the panels that a matrix is divided into: whole tiles, alike but for the last one, as few
// panels as `values` allow, in multiples of 128 rows where that costs no further panel.
// REQUIRES: values hold a tile.
int64_t PanelRows(int64_t rows, int64_t cols, int64_t values);

// A plain value; what it points to outlives its users.
class F16Products {
 public:
  // `panel` (16-byte aligned) has room for `panel_values`. `library` is open.
  F16Products(const OpTable* ops, CublasLt* library, uint16_t* panel, int64_t panel_values)
      : ops_(ops), library_(library), panel_(panel), panel_values_(panel_values) {}

  // As OpTable::matmul, of whole rows of weights of any type: weights and activations rounded to
  // f16, sums in float32, in the order of the library. `x` has been rounded by the table; `args`
  // has its tokens, and neither its x nor its xq is read. All of y's rows are the call's. Errors:
  // those of CublasLt::Multiply.
  Status Multiply(const MatmulArgs& args, const F16Activations& x, CUstream_st* stream) const;

  // The same products with whatever the panel holds, so that what the library loads for them is
  // there. `y` is written.
  Status Prepare(int64_t rows, int64_t cols, const F16Activations& x, int64_t tokens, float* y,
                 int64_t y_stride, CUstream_st* stream) const;

 private:
  const OpTable* ops_;
  CublasLt* library_;
  uint16_t* panel_;
  int64_t panel_values_;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CUDA_F16_PRODUCTS_H_
