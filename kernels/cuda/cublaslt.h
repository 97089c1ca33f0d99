// Products of matrices in f16 by NVIDIA's cuBLASLt. The library is loaded if it is there, so a
// program starts where it is not; it belongs to the CUDA toolkit, not to the driver.
#ifndef SLUICE_KERNELS_CUDA_CUBLASLT_H_
#define SLUICE_KERNELS_CUDA_CUBLASLT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/status.h"

struct CUstream_st;

namespace sluice {

// y[t, r] = sum over k of w[r, k] x[t, k], added to y if add_to_y. Strides are in elements.
// w and x begin on multiples of 16 bytes, and so do their rows.
struct F16Product {
  const uint16_t* w;  // f16 [rows, cols]
  int64_t w_stride;
  const uint16_t* x;  // f16 [tokens, cols]
  int64_t x_stride;
  float* y;  // [tokens, rows]
  int64_t y_stride;
  int64_t rows, cols, tokens;
  bool add_to_y;
};

// Move-only; one thread at a time.
class CublasLt {
 public:
  // "libcublasLt.so.13", "libcublasLt.so.12": as the system's loader finds them.
  static std::vector<std::string> Libraries();

  // The first of the libraries that can be loaded and has all that is needed. Asks nothing of a
  // GPU. Error: kUnsupported, with the reason for each.
  static Result<CublasLt> Load(std::span<const std::string> libraries);

  CublasLt(CublasLt&& other) noexcept;
  CublasLt& operator=(CublasLt&& other) noexcept;
  ~CublasLt();

  // "cuBLASLt 13.1.0 (libcublasLt.so.13)".
  const std::string& description() const;

  // Begins to work on the current GPU of the calling thread, with that memory of it (256-byte
  // aligned; it outlives the work) for what products need beside their operands. Errors as
  // Multiply.
  Status Open(std::byte* workspace, uint64_t workspace_bytes, int64_t most_tokens);

  // Queues a product of at most most_tokens tokens, with float32 sums. The algorithm is the one
  // that the library takes to be fastest for most_tokens tokens among those that do not divide a
  // sum, for fewer tokens too where it serves them: so that a token's sums are made in the same way
  // whatever stands beside it, as far as a library whose source is not known lets one say so.
  // Errors: kUnsupported where the library has no algorithm; kOutOfMemory; kIo for what else it
  // refuses, by its own words. What goes wrong on the GPU shows as with kernels.
  // REQUIRES: Open.
  Status Multiply(const F16Product& product, CUstream_st* stream);

 private:
  class Impl;
  explicit CublasLt(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CUDA_CUBLASLT_H_
