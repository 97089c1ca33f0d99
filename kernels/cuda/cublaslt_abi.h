// The part of cuBLASLt's binary interface that is used (cublasLt.h, cublas_api.h and
// library_types.h of the CUDA toolkit, versions 12 and 13): handles are opaque, enumerations are
// ints. Said here, so that builds without those headers have it too; cublaslt_abi.cu holds it
// against them.
#ifndef SLUICE_KERNELS_CUDA_CUBLASLT_ABI_H_
#define SLUICE_KERNELS_CUDA_CUBLASLT_ABI_H_

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace sluice::cublaslt {

// cublasStatus_t.
inline constexpr int kSuccess = 0;
inline constexpr int kAllocFailed = 3;
inline constexpr int kArchMismatch = 8;
inline constexpr int kNotSupported = 15;

inline constexpr int kComputeF32 = 68;  // cublasComputeType_t: CUBLAS_COMPUTE_32F
inline constexpr int kRealF32 = 0;      // cudaDataType_t: CUDA_R_32F
inline constexpr int kRealF16 = 2;      // CUDA_R_16F

inline constexpr int32_t kPlain = 0;       // cublasOperation_t
inline constexpr int32_t kTransposed = 1;  // CUBLAS_OP_T
inline constexpr int kTransposeA = 3;      // cublasLtMatmulDescAttributes_t, an int32

// cublasLtMatmulPreferenceAttributes_t.
inline constexpr int kMaxWorkspaceBytes = 1;     // uint64
inline constexpr int kReductionSchemeMask = 3;   // uint32
inline constexpr int kMinAlignmentBytesOfA = 5;  // uint32; those of B, C and D follow
inline constexpr int kMinAlignmentBytesOfD = 8;

// cublasLtReductionScheme_t: the sum over k is not divided among blocks of threads.
inline constexpr uint32_t kNoReduction = 0;

struct Algorithm {
  uint64_t data[8];
};

struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

// The functions, by their names.
struct Functions {
  size_t (*GetVersion)();
  const char* (*GetStatusString)(int status);
  int (*Create)(void** handle);
  int (*Destroy)(void* handle);
  int (*MatmulDescCreate)(void** desc, int compute_type, int scale_type);
  int (*MatmulDescSetAttribute)(void* desc, int attribute, const void* value, size_t size_bytes);
  int (*MatmulDescDestroy)(void* desc);
  int (*MatrixLayoutCreate)(void** layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
  int (*MatrixLayoutDestroy)(void* layout);
  int (*MatmulPreferenceCreate)(void** preference);
  int (*MatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value,
                                      size_t size_bytes);
  int (*MatmulPreferenceDestroy)(void* preference);
  int (*MatmulAlgoGetHeuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d,
                                void* preference, int wanted, HeuristicResult* results, int* found);
  int (*MatmulAlgoCheck)(void* handle, void* desc, void* a, void* b, void* c, void* d,
                         const Algorithm* algorithm, HeuristicResult* result);
  int (*Matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout,
                const void* b, void* b_layout, const void* beta, const void* c, void* c_layout,
                void* d, void* d_layout, const Algorithm* algorithm, void* workspace,
                size_t workspace_bytes, CUstream_st* stream);
};

}  // namespace sluice::cublaslt

#endif  // SLUICE_KERNELS_CUDA_CUBLASLT_ABI_H_
