// The CUDA operations through a device's own memory: on a GPU where there is one, and the same test
// on the host with the emulated operations, so that it is known to work before it meets a GPU.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_DEVICE_CASE_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_DEVICE_CASE_H_

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launchers.h"
#include "kernels/select.h"
#include "offload/device.h"
#include "tests/support/numeric_contract.h"

#ifdef SLUICE_HAS_CUDA
namespace sluice::cuda {
extern const OpTable kCudaTable;
}
#endif

namespace sluice::test {

enum class Where { kEmulated, kGpu };

class DeviceCase : public testing::TestWithParam<Where> {
 protected:
  void SetUp() override {
    if (GetParam() == Where::kEmulated) {
      device_ = OpenHostDevice(uint64_t{1} << 30);
      table_ = &cuda_emulation::kCudaTable;
    } else {
      Result<std::unique_ptr<Device>> device = OpenCudaDevice(0, LoadCudaKernels);
      if (!device.ok()) GTEST_SKIP() << device.status().message();
      device_ = std::move(*device);
#ifdef SLUICE_HAS_CUDA
      table_ = &cuda::kCudaTable;
#endif
    }
    Result<DeviceStream> stream = device_->CreateStream();
    ASSERT_TRUE(stream.ok()) << stream.status().message();
    stream_ = std::move(*stream);
  }

  // A copy of the values in the device's memory, until the test ends.
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    Result<DeviceBuffer> buffer = device_->Allocate(values.size() * sizeof(T));
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    buffers_.push_back(std::move(*buffer));
    std::byte* data = buffers_.back().data();
    const Status status =
        stream_.Copy(data, values.data(), values.size() * sizeof(T), CopyDirection::kHostToDevice);
    EXPECT_TRUE(status.ok()) << status.message();
    EXPECT_TRUE(stream_.Synchronize().ok());
    return reinterpret_cast<T*>(data);
  }

  template <typename T>
  std::vector<T> Download(const T* data, size_t count) {
    std::vector<T> values(count);
    Status status =
        stream_.Copy(values.data(), data, count * sizeof(T), CopyDirection::kDeviceToHost);
    EXPECT_TRUE(status.ok()) << status.message();
    status = stream_.Synchronize();
    EXPECT_TRUE(status.ok()) << status.message();
    return values;
  }

  // Room for int8 activations, with values that nobody would compute.
  QuantizedActivations UploadQuantized(int64_t tokens, int64_t cols, int64_t group) {
    const ActivationBuffer sizes(tokens, cols, group);
    return {Upload(sizes.values), Upload(sizes.scales), Upload(sizes.sums),
            sizes.group_size,     sizes.groups,         sizes.padded_cols};
  }

  std::unique_ptr<Device> device_;
  const OpTable* table_ = nullptr;
  std::deque<DeviceBuffer> buffers_;
  DeviceStream stream_;
};

inline std::string NameOfPlace(const testing::TestParamInfo<Where>& info) {
  return info.param == Where::kGpu ? "Gpu" : "Emulated";
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_DEVICE_CASE_H_
