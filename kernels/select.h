// Which operation tables this machine can run, and the choice of one.
#ifndef SLUICE_KERNELS_SELECT_H_
#define SLUICE_KERNELS_SELECT_H_

#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "kernels/ops.h"

namespace sluice {

// Tables that the processor and the operating system can run, slowest first; `ref` is always there.
std::vector<const OpTable*> AvailableTables();

// The table of that name, or the fastest one if the name is empty. Errors: kInvalidArgument for a
// name that is not known, kUnsupported for one that this machine cannot run.
// The table of a GPU is none of them: see CudaTable.
Result<const OpTable*> SelectTable(std::string_view name);

// Why the fastest table that the processor advertises does not run here ("AMX: the kernel ...");
// empty where it runs, or none is advertised that does not.
std::string FallbackReason();

// Whether the table's products in bf16 run here (OpTable::matmul_bf16). Error: kUnsupported with
// the reason. `processor_has_bf16` is for tests.
Status CheckBf16(const OpTable& table, bool processor_has_bf16);
Status CheckBf16(const OpTable& table);

// The operations of NVIDIA GPUs, for pointers of their memory; null in a build without CUDA.
const OpTable* CudaTable();
// Loads all kernels onto the current GPU of the calling thread, so that none takes memory when it
// is first used. Errors: kOutOfMemory; kUnsupported where the build has no code for the GPU.
Status LoadCudaKernels();

extern const OpTable kRefTable;
extern const OpTable kAvx2Table;
extern const OpTable kAvx512Table;
extern const OpTable kAmxTable;

}  // namespace sluice

#endif  // SLUICE_KERNELS_SELECT_H_
