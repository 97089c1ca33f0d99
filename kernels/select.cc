#include "kernels/select.h"

#include <string>

#include "kernels/cpu_features.h"

namespace sluice {
#ifdef SLUICE_HAS_CUDA
namespace cuda {
extern const OpTable kCudaTable;
Status LoadKernels();
}  // namespace cuda
#endif
namespace {

struct Candidate {
  const OpTable* table;
  bool (*runs_here)();
};

constexpr Candidate kCandidates[] = {
    {&kRefTable, [] { return true; }},
    {&kAvx2Table, CpuHasAvx2},
    {&kAvx512Table, CpuHasAvx512},
};

// Tables that the command line names and this build does not have.
constexpr const char* kNotBuilt[] = {"amx"};

}  // namespace

std::vector<const OpTable*> AvailableTables() {
  std::vector<const OpTable*> tables;
  for (const Candidate& candidate : kCandidates) {
    if (candidate.runs_here()) tables.push_back(candidate.table);
  }
  return tables;
}

Result<const OpTable*> SelectTable(std::string_view name) {
  if (name.empty()) return AvailableTables().back();
  for (const Candidate& candidate : kCandidates) {
    if (candidate.table->name != name) continue;
    if (candidate.runs_here()) return candidate.table;
    return Status(ErrorCode::kUnsupported,
                  "this processor cannot run the operations \"" + std::string(name) + "\"");
  }
  if (name == "cuda") {
    return Status(ErrorCode::kUnsupported,
                  "the operations \"cuda\" are a GPU's, not the processor's");
  }
  for (const char* planned : kNotBuilt) {
    if (name == planned) {
      return Status(ErrorCode::kUnsupported,
                    "this build has no operations \"" + std::string(name) + "\"");
    }
  }
  return Status(ErrorCode::kInvalidArgument,
                "operations \"" + std::string(name) + "\" are not known");
}

const OpTable* CudaTable() {
#ifdef SLUICE_HAS_CUDA
  return &cuda::kCudaTable;
#else
  return nullptr;
#endif
}

Status LoadCudaKernels() {
#ifdef SLUICE_HAS_CUDA
  return cuda::LoadKernels();
#else
  return Status(ErrorCode::kUnsupported, "this build has no CUDA");
#endif
}

}  // namespace sluice
