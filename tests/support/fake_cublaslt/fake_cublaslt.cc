// cuBLASLt as far as kernels/cuda/cublaslt.cc calls it, on the host, in float64: a shared library
// of that name. Written from NVIDIA's documentation of the functions ("cuBLAS", section "Using the
// cuBLASLt API"), with numbers of its own, so that it does not repeat a mistake of its caller.
#include "tests/support/fake_cublaslt/fake_cublaslt.h"

#include <cstring>

#include "formats/half.h"

namespace {

using sluice::test::FakeCublasLt;
using sluice::test::FakeMatrix;
using sluice::test::FakeProduct;

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 7;
constexpr int kNotSupported = 15;
constexpr uint64_t kMark = 0x5eed;
constexpr size_t kWorkspace = 1 << 20;  // that an algorithm says it needs

struct Operation {
  int compute_type, scale_type;
  int32_t transpose_a = 0, transpose_b = 0;
};
struct Preference {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_schemes = 7;
  uint32_t alignments[4] = {256, 256, 256, 256};
};
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

FakeCublasLt state;

int ErrorOf(const char* function) {
  const auto found = state.errors.find(function);
  return found == state.errors.end() ? kSuccess : found->second;
}

template <typename T, typename... Args>
int Make(const char* function, void** out, const Args&... args) {
  if (const int error = ErrorOf(function); error != kSuccess) return error;
  ++state.live_objects;
  *out = new T{args...};
  return kSuccess;
}

template <typename T>
int End(void* object) {
  --state.live_objects;
  delete static_cast<T*>(object);
  return kSuccess;
}

template <typename T>
int Set(const void* value, size_t size_bytes, T* out) {
  if (size_bytes != sizeof(T)) return kInvalidValue;
  std::memcpy(out, value, sizeof(T));
  return kSuccess;
}

double At(const FakeMatrix& matrix, const void* data, uint64_t row, uint64_t col) {
  const size_t at = static_cast<size_t>(col) * static_cast<size_t>(matrix.stride) + row;
  if (matrix.type == 2) {  // CUDA_R_16F
    return double{sluice::F16ToFloat(static_cast<const uint16_t*>(data)[at])};
  }
  return double{static_cast<const float*>(data)[at]};
}

// Whether op(a) op(b) is a matrix of the shape of d, whose columns hold its rows.
int CheckShapes(const FakeProduct& p) {
  const uint64_t m = p.transpose_a ? p.a.cols : p.a.rows;
  const uint64_t k = p.transpose_a ? p.a.rows : p.a.cols;
  const uint64_t n = p.transpose_b ? p.b.rows : p.b.cols;
  const uint64_t k_of_b = p.transpose_b ? p.b.cols : p.b.rows;
  const bool fit = k == k_of_b && m == p.d.rows && n == p.d.cols && p.c.rows == m && p.c.cols == n;
  for (const FakeMatrix& matrix : {p.a, p.b, p.c, p.d}) {
    if (matrix.stride < static_cast<int64_t>(matrix.rows)) return kInvalidValue;
  }
  if (!fit) return kInvalidValue;
  const bool known = p.compute_type == 68 && p.scale_type == 0 && p.a.type == 2 && p.b.type == 2 &&
                     p.c.type == 0 && p.d.type == 0;
  return known ? kSuccess : kNotSupported;
}

void Multiply(const FakeProduct& p) {
  const uint64_t k = p.transpose_a ? p.a.rows : p.a.cols;
  for (uint64_t j = 0; j < p.d.cols; ++j) {
    for (uint64_t i = 0; i < p.d.rows; ++i) {
      double sum = 0;
      for (uint64_t l = 0; l < k; ++l) {
        const double a = p.transpose_a ? At(p.a, p.a_data, l, i) : At(p.a, p.a_data, i, l);
        const double b = p.transpose_b ? At(p.b, p.b_data, j, l) : At(p.b, p.b_data, l, j);
        sum += a * b;
      }
      sum *= double{p.alpha};
      // A result that is not added to may hold anything.
      if (p.beta != 0) sum += double{p.beta} * At(p.c, p.c_data, i, j);
      static_cast<float*>(p.d_data)[j * static_cast<size_t>(p.d.stride) + i] =
          static_cast<float>(sum);
    }
  }
}

FakeProduct ProductOf(void* operation, void* a, void* b, void* c, void* d) {
  const auto* const its = static_cast<const Operation*>(operation);
  FakeProduct product = {};
  product.transpose_a = its->transpose_a == 1;
  product.transpose_b = its->transpose_b == 1;
  product.compute_type = its->compute_type;
  product.scale_type = its->scale_type;
  product.a = *static_cast<const FakeMatrix*>(a);
  product.b = *static_cast<const FakeMatrix*>(b);
  product.c = *static_cast<const FakeMatrix*>(c);
  product.d = *static_cast<const FakeMatrix*>(d);
  return product;
}

}  // namespace

extern "C" {

FakeCublasLt* FakeCublasLtState() { return &state; }

size_t cublasLtGetVersion() { return 130205; }
const char* cublasLtGetStatusString(int status) {
  return status == 3 ? "the resource allocation failed" : "some error";
}

int cublasLtCreate(void** handle) { return Make<int>("Create", handle, 1); }
int cublasLtDestroy(void* handle) { return End<int>(handle); }

int cublasLtMatmulDescCreate(void** desc, int compute_type, int scale_type) {
  return Make<Operation>("MatmulDescCreate", desc, compute_type, scale_type);
}
int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value,
                                   size_t size_bytes) {
  if (const int error = ErrorOf("MatmulDescSetAttribute"); error != kSuccess) return error;
  auto* const operation = static_cast<Operation*>(desc);
  if (attribute == 3) return Set(value, size_bytes, &operation->transpose_a);
  if (attribute == 4) return Set(value, size_bytes, &operation->transpose_b);
  return kInvalidValue;
}
int cublasLtMatmulDescDestroy(void* desc) { return End<Operation>(desc); }

int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t cols,
                               int64_t stride) {
  return Make<FakeMatrix>("MatrixLayoutCreate", layout, type, rows, cols, stride);
}
int cublasLtMatrixLayoutDestroy(void* layout) { return End<FakeMatrix>(layout); }

int cublasLtMatmulPreferenceCreate(void** preference) {
  return Make<Preference>("MatmulPreferenceCreate", preference);
}
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value,
                                         size_t size_bytes) {
  if (const int error = ErrorOf("MatmulPreferenceSetAttribute"); error != kSuccess) return error;
  auto* const preferred = static_cast<Preference*>(preference);
  if (attribute == 1) return Set(value, size_bytes, &preferred->workspace_bytes);
  if (attribute == 3) return Set(value, size_bytes, &preferred->reduction_schemes);
  if (attribute >= 5 && attribute <= 8) {
    return Set(value, size_bytes, &preferred->alignments[attribute - 5]);
  }
  return kInvalidValue;
}
int cublasLtMatmulPreferenceDestroy(void* preference) { return End<Preference>(preference); }

int cublasLtMatmulAlgoGetHeuristic(void*, void* desc, void* a, void* b, void* c, void* d,
                                   void* preference, int wanted, HeuristicResult* results,
                                   int* found) {
  *found = 0;
  if (const int error = ErrorOf("MatmulAlgoGetHeuristic"); error != kSuccess) return error;
  if (wanted < 1) return kInvalidValue;
  const FakeProduct product = ProductOf(desc, a, b, c, d);
  if (const int error = CheckShapes(product); error != kSuccess) return error;
  const auto* const preferred = static_cast<const Preference*>(preference);
  const uint64_t k = product.transpose_a ? product.a.rows : product.a.cols;
  state.choices.push_back({product.d.rows,
                           product.d.cols,
                           k,
                           preferred->workspace_bytes,
                           preferred->reduction_schemes,
                           {preferred->alignments[0], preferred->alignments[1],
                            preferred->alignments[2], preferred->alignments[3]}});
  if (state.no_algorithm || preferred->workspace_bytes < kWorkspace) return kSuccess;
  results[0] = {};
  results[0].algorithm.data[0] = kMark;
  results[0].algorithm.data[1] = product.d.cols;
  results[0].workspace_bytes = kWorkspace;
  results[0].state = kSuccess;
  *found = 1;
  return kSuccess;
}

int cublasLtMatmulAlgoCheck(void*, void* desc, void* a, void* b, void* c, void* d,
                            const Algorithm* algorithm, HeuristicResult* result) {
  if (const int error = ErrorOf("MatmulAlgoCheck"); error != kSuccess) return error;
  const FakeProduct product = ProductOf(desc, a, b, c, d);
  if (algorithm->data[0] != kMark) return kInvalidValue;
  if (product.d.cols < state.least_check_cols) return kNotSupported;
  result->workspace_bytes = kWorkspace;
  return CheckShapes(product);
}

int cublasLtMatmul(void*, void* desc, const void* alpha, const void* a, void* a_layout,
                   const void* b, void* b_layout, const void* beta, const void* c, void* c_layout,
                   void* d, void* d_layout, const Algorithm* algorithm, void* workspace,
                   size_t workspace_bytes, CUstream_st* stream) {
  if (const int error = ErrorOf("Matmul"); error != kSuccess) return error;
  FakeProduct product = ProductOf(desc, a_layout, b_layout, c_layout, d_layout);
  product.a_data = a;
  product.b_data = b;
  product.c_data = c;
  product.d_data = d;
  std::memcpy(&product.alpha, alpha, sizeof(float));
  std::memcpy(&product.beta, beta, sizeof(float));
  product.workspace = workspace;
  product.workspace_bytes = workspace_bytes;
  product.algorithm_cols = algorithm->data[1];
  if (algorithm->data[0] != kMark || workspace_bytes < kWorkspace) return kInvalidValue;
  if (const int error = CheckShapes(product); error != kSuccess) return error;
  state.products.push_back(product);
  if (state.before && !state.before(product, stream)) return kSuccess;
  Multiply(product);
  if (state.after) state.after();
  return kSuccess;
}

}  // extern "C"
