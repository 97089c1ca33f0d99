// What the processor can do at best with the instructions of a table: the limits that benchmarks
// compare kernels with. Each loop runs on one thread.
#ifndef SLUICE_KERNELS_PEAK_H_
#define SLUICE_KERNELS_PEAK_H_

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace sluice {

struct PeakLoops {
  // Multiplies and adds integers as matmul's inner loop does, from registers. Returns the
  // operations done (a product and its addition are two) in `rounds` rounds.
  int64_t (*arithmetic)(int64_t rounds);
  // The same of matmul_bf16; null where the table has none.
  int64_t (*arithmetic_bf16)(int64_t rounds);
  // The same of float32: multiplies and adds as attention and products of float weights do.
  int64_t (*arithmetic_f32)(int64_t rounds);
  // Reads memory in the widest loads. Returns something that depends on all of it.
  uint64_t (*read)(const std::byte* memory, size_t size_bytes);
};

// Of the table with that name, or of what it is built on. REQUIRES: the table runs here.
PeakLoops PeakLoopsOf(const OpTable& table);

}  // namespace sluice

#endif  // SLUICE_KERNELS_PEAK_H_
