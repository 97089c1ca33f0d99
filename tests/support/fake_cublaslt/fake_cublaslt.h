// What tests tell the fake cuBLASLt and what it tells them: shared between the library, which is
// loaded as NVIDIA's is, and tests/support/cuda_emulation/fake_f16_library.
#ifndef SLUICE_TESTS_SUPPORT_FAKE_CUBLASLT_FAKE_CUBLASLT_H_
#define SLUICE_TESTS_SUPPORT_FAKE_CUBLASLT_FAKE_CUBLASLT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

struct CUstream_st;

namespace sluice::test {

struct FakeMatrix {
  int type;  // cudaDataType_t
  uint64_t rows, cols;
  int64_t stride;  // of a column
};

// One cublasLtMatmul, in the library's own terms: matrices in columns.
struct FakeProduct {
  bool transpose_a, transpose_b;
  int compute_type, scale_type;
  FakeMatrix a, b, c, d;
  const void *a_data, *b_data, *c_data;
  void* d_data;
  float alpha, beta;
  void* workspace;
  size_t workspace_bytes;
  uint64_t algorithm_cols;  // of d, when the algorithm was asked for
};

// One cublasLtMatmulAlgoGetHeuristic.
struct FakeChoice {
  uint64_t rows, cols, k;
  uint64_t workspace_bytes;
  uint32_t reduction_schemes;
  uint32_t alignments[4];
};

struct FakeCublasLt {
  std::map<std::string, int> errors;  // function without "cublasLt" -> the status that it gives
  bool no_algorithm = false;          // a heuristic that finds none
  uint64_t least_check_cols = 0;      // an algorithm serves no fewer
  // Before a product; false: it is not done.
  std::function<bool(const FakeProduct& product, CUstream_st* stream)> before;
  std::function<void()> after;

  std::vector<FakeProduct> products;
  std::vector<FakeChoice> choices;
  int64_t live_objects = 0;  // handles and descriptors that were not destroyed
};

}  // namespace sluice::test

extern "C" sluice::test::FakeCublasLt* FakeCublasLtState();

#endif  // SLUICE_TESTS_SUPPORT_FAKE_CUBLASLT_FAKE_CUBLASLT_H_
