#include "kernels/select.h"

#include <string>
#include <utility>

#include "kernels/amx_support.h"
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
    {&kAmxTable, [] { return AmxOfThisMachine() == AmxState::kUsable; }},
};

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
    std::string message = "this processor cannot run the operations \"" + std::string(name) + "\"";
    if (candidate.table == &kAmxTable) message += std::string(": ") + Describe(AmxOfThisMachine());
    return Status(ErrorCode::kUnsupported, std::move(message));
  }
  if (name == "cuda") {
    return Status(ErrorCode::kUnsupported,
                  "the operations \"cuda\" are a GPU's, not the processor's");
  }
  return Status(ErrorCode::kInvalidArgument,
                "operations \"" + std::string(name) + "\" are not known");
}

std::string FallbackReason() {
  const AmxState amx = AmxOfThisMachine();
  if (amx == AmxState::kUsable || amx == AmxState::kAbsent) return "";
  return std::string("AMX: ") + Describe(amx);
}

Status CheckBf16(const OpTable& table, bool processor_has_bf16) {
  if (table.matmul_bf16 == nullptr) {
    return Status(ErrorCode::kUnsupported, std::string("the operations \"") + table.name +
                                               "\" have no products in bf16 (ref, avx512 and amx "
                                               "have them)");
  }
  if (&table != &kRefTable && !processor_has_bf16) {
    return Status(ErrorCode::kUnsupported,
                  "the processor has no instructions for bf16 (AVX512_BF16)");
  }
  return Status();
}

Status CheckBf16(const OpTable& table) { return CheckBf16(table, CpuHasAvx512Bf16()); }

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
