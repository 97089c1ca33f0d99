// cublaslt_abi.h against the toolkit's own headers, where it has them.
#ifdef __CUDACC__
#if __has_include(<cublasLt.h>)

#include <cublasLt.h>

#include <cstddef>
#include <type_traits>

#include "kernels/cuda/cublaslt_abi.h"

namespace sluice::cublaslt {
namespace {

static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kAllocFailed == CUBLAS_STATUS_ALLOC_FAILED);
static_assert(kArchMismatch == CUBLAS_STATUS_ARCH_MISMATCH);
static_assert(kNotSupported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(kComputeF32 == CUBLAS_COMPUTE_32F);
static_assert(kRealF32 == CUDA_R_32F && kRealF16 == CUDA_R_16F);
static_assert(kPlain == CUBLAS_OP_N && kTransposed == CUBLAS_OP_T);
static_assert(kTransposeA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kReductionSchemeMask == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kMinAlignmentBytesOfA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kMinAlignmentBytesOfD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kNoReduction == CUBLASLT_REDUCTION_SCHEME_NONE);

static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(HeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(HeuristicResult, workspace_bytes) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(HeuristicResult, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));

// Passed in the same way.
template <typename A, typename B>
constexpr bool kAlike = std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B) &&
                        (std::is_pointer_v<A> ||
                         (std::is_integral_v<A> && (std::is_integral_v<B> || std::is_enum_v<B>)));

template <typename Ours, typename Theirs>
struct SameCall : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
requires(sizeof...(A) == sizeof...(B)) struct SameCall<R (*)(A...), S (*)(B...)>
    : std::bool_constant<kAlike<R, S> && (kAlike<A, B> && ...)> {
};

#define SLUICE_CHECK_CALL(name) \
  static_assert(SameCall<decltype(Functions::name), decltype(&cublasLt##name)>::value)
SLUICE_CHECK_CALL(GetVersion);
SLUICE_CHECK_CALL(GetStatusString);
SLUICE_CHECK_CALL(Create);
SLUICE_CHECK_CALL(Destroy);
SLUICE_CHECK_CALL(MatmulDescCreate);
SLUICE_CHECK_CALL(MatmulDescSetAttribute);
SLUICE_CHECK_CALL(MatmulDescDestroy);
SLUICE_CHECK_CALL(MatrixLayoutCreate);
SLUICE_CHECK_CALL(MatrixLayoutDestroy);
SLUICE_CHECK_CALL(MatmulPreferenceCreate);
SLUICE_CHECK_CALL(MatmulPreferenceSetAttribute);
SLUICE_CHECK_CALL(MatmulPreferenceDestroy);
SLUICE_CHECK_CALL(MatmulAlgoGetHeuristic);
SLUICE_CHECK_CALL(MatmulAlgoCheck);
SLUICE_CHECK_CALL(Matmul);
#undef SLUICE_CHECK_CALL

}  // namespace
}  // namespace sluice::cublaslt

#endif
#endif
