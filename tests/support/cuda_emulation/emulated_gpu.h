// The emulated CUDA operations on a FakeDevice: what they are given is checked as a GPU would find
// it out.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "tests/support/fake_device.h"

namespace sluice::test {

// While it lives, kernels of table() see the device's memory, after the stream's earlier work is
// done, and run on one of its streams. Every array of a call must lie in one allocation of the
// device, with all elements that the operation may touch; tables of blocks and slots too. One at a
// time. What was wrong fails the test at the end unless TakeProblems took it. Kernels on a lost
// device do nothing.
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

 private:
  friend class CallCheck;

  FakeDevice* device_;
  int64_t launches_ = 0;
  std::vector<std::string> problems_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_EMULATED_GPU_H_
