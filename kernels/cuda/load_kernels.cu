#include "formats/status.h"
#include "kernels/cuda/intrinsics.h"

#ifdef __CUDACC__

namespace sluice::cuda {

// Asking for a kernel's attributes loads it; the runtime would otherwise do so when it first
// starts. Launches overlap from then on if the GPU's can.
Status LoadKernels() {
  for (const ListedKernel* listed = ListedKernel::First(); listed != nullptr;
       listed = listed->next) {
    cudaFuncAttributes attributes = {};
    const cudaError_t error = cudaFuncGetAttributes(&attributes, listed->kernel);
    if (error == cudaSuccess) continue;
    cudaGetLastError();
    return Status(
        error == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kUnsupported,
        std::string("loading the kernels: ") + cudaGetErrorString(error));
  }
  int device = 0;
  int major = 0;
  if (cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess) {
    launches_overlap = major >= 9;
  }
  return Status();
}

}  // namespace sluice::cuda

#endif
