// The emulated CUDA operations on a FakeDevice: what they are given is checked as a GPU would find
// it out.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/fake_device.h"

namespace sluice::test {

// While it lives, kernels of table() see the device's memory, after the stream's earlier work is
// done, and run on one of its streams. Every array of a call must lie in one allocation of the
// device, with all elements that the operation may touch; tables of blocks and slots too. What a
// kernel reads or writes of them before it has waited for earlier work, but for weights, is not
// what it should be. One at a time. What was wrong fails the test at the end unless TakeProblems
// took it. Kernels on a lost device do nothing.
class EmulatedGpu {
 public:
  explicit EmulatedGpu(FakeDevice* device);
  ~EmulatedGpu();
  EmulatedGpu(const EmulatedGpu&) = delete;
  EmulatedGpu& operator=(const EmulatedGpu&) = delete;

  static const OpTable& table();
  FakeDevice* device() const { return device_; }
  int64_t launches() const { return launches_; }
  std::vector<std::string> TakeProblems();

  // Arrays of the next kernels that earlier work may write, or read.
  void Changes(const void* data, uint64_t size_bytes);
  void ForgetChanges() { changes_.clear(); }

 private:
  friend class CallCheck;

  void Invert();

  FakeDevice* device_;
  int64_t launches_ = 0;
  std::vector<std::string> problems_;
  std::vector<std::pair<std::byte*, std::byte*>> changes_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_
