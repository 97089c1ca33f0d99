// The fake cuBLASLt (tests/support/fake_cublaslt), as a test holds it, on a FakeDevice or on plain
// memory of the host.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FAKE_F16_LIBRARY_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FAKE_F16_LIBRARY_H_

#include <optional>
#include <string>
#include <vector>

#include "tests/support/fake_cublaslt/fake_cublaslt.h"
#include "tests/support/fake_device.h"

namespace sluice::test {

// While it lives, products come after the earlier work of their stream, must lie in memory of the
// device, and see it; on a lost device they do nothing. What it leaves undestroyed fails the test.
// One at a time.
class FakeF16Library {
 public:
  // Null: operands are memory of the host.
  explicit FakeF16Library(FakeDevice* device = nullptr);
  ~FakeF16Library();
  FakeF16Library(const FakeF16Library&) = delete;
  FakeF16Library& operator=(const FakeF16Library&) = delete;

  // What CublasLt::Load is given.
  static std::vector<std::string> Libraries();
  FakeCublasLt* operator->() { return state_; }

 private:
  bool IsGood(const FakeProduct& product, CUstream_st* stream) const;

  FakeDevice* device_;
  void* library_;
  FakeCublasLt* state_;
  std::optional<FakeDevice::Access> access_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FAKE_F16_LIBRARY_H_
