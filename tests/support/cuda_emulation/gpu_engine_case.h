// An engine of a small model on the emulated GPU, for tests.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_GPU_ENGINE_CASE_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_GPU_ENGINE_CASE_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine_impl.h"
#include "tests/support/cuda_emulation/emulated_gpu.h"
#include "tests/support/fake_device.h"
#include "tests/support/golden_model.h"
#include "tests/support/scratch_directory.h"

namespace sluice::test {

class GpuEngineCase : public ::testing::Test {
 protected:
  // The model of the engines that follow; other options are those of the start.
  void Use(const std::string& golden, const std::string& quantization) {
    golden_ = testing::LoadGolden(golden);
    options_ = EngineOptions();
    options_.model_path = testing::ConvertGolden(golden_, quantization, folder_ / "m.sluice");
    options_.threads = 1;
    options_.max_batch_tokens = 16;
  }

  // A GPU that the next engine opens.
  FakeDevice& Attach(const DeviceFaults& faults = {}) {
    gpu_.reset();
    device_ = std::make_shared<FakeDevice>(faults);
    gpu_.emplace(device_.get());
    return *device_;
  }
  Result<std::unique_ptr<Engine>> Open() {
    return EngineImpl::Open(options_, [this]() -> Result<Gpu> {
      if (device_ == nullptr) return Status(ErrorCode::kUnsupported, "there is no NVIDIA driver");
      return Gpu{device_, &EmulatedGpu::table(), libraries_};
    });
  }

  static Request Prompt(std::vector<int32_t> ids, int64_t new_tokens) {
    Request request;
    request.prompt = std::move(ids);
    request.max_new_tokens = new_tokens;
    request.sampling.temperature = 0;
    request.ignore_eos = true;
    return request;
  }
  // The first tokens of the golden's first sequence.
  Request FirstTokens(int64_t count, int64_t new_tokens) const {
    const std::vector<int32_t>& ids = golden_.tokens[0];
    return Prompt({ids.begin(), ids.begin() + count}, new_tokens);
  }
  // A prompt of more than one pass, and a few tokens after it.
  Result<std::vector<int32_t>> Answer(Engine* engine) const {
    Result<Completion> completion = engine->Generate(FirstTokens(20, 4), nullptr);
    if (!completion.ok()) return completion.status();
    return completion->tokens;
  }
  Result<std::vector<int32_t>> OpenAndAnswer() {
    Result<std::unique_ptr<Engine>> engine = Open();
    if (!engine.ok()) return engine.status();
    return Answer(engine->get());
  }

  ScratchDirectory folder_;
  testing::GoldenModel golden_;
  EngineOptions options_;
  std::vector<std::string> libraries_ = CublasLt::Libraries();
  std::shared_ptr<FakeDevice> device_;
  std::optional<EmulatedGpu> gpu_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_GPU_ENGINE_CASE_H_
