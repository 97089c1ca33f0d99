#include "tests/support/cuda_emulation/fake_f16_library.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace sluice::test {
namespace {

// Bytes from the first to the last element.
uint64_t SizeOf(const FakeMatrix& matrix) {
  const uint64_t element = matrix.type == 2 ? 2 : 4;
  return ((matrix.cols - 1) * static_cast<uint64_t>(matrix.stride) + matrix.rows) * element;
}

}  // namespace

FakeF16Library::FakeF16Library(FakeDevice* device)
    : device_(device), library_(dlopen(SLUICE_FAKE_CUBLASLT, RTLD_NOW | RTLD_LOCAL)) {
  using State = FakeCublasLt* (*)();
  const auto state =
      library_ == nullptr ? nullptr : reinterpret_cast<State>(dlsym(library_, "FakeCublasLtState"));
  if (state == nullptr) {
    ADD_FAILURE() << SLUICE_FAKE_CUBLASLT << " cannot be loaded";
    std::abort();
  }
  state_ = state();
  *state_ = FakeCublasLt();
  if (device_ == nullptr) return;
  state_->before = [this](const FakeProduct& product, CUstream_st* stream) {
    if (!IsGood(product, stream)) return false;
    device_->CatchUp(stream);
    access_.emplace(device_);
    return true;
  };
  state_->after = [this] { access_.reset(); };
}

FakeF16Library::~FakeF16Library() {
  EXPECT_EQ(state_->live_objects, 0) << "of cuBLASLt are left";
  *state_ = FakeCublasLt();
  dlclose(library_);
}

bool FakeF16Library::IsGood(const FakeProduct& p, CUstream_st* stream) const {
  if (device_->lost()) return false;
  EXPECT_TRUE(device_->HasStream(stream)) << "a product on no stream of the device";
  EXPECT_FALSE(device_->recording(stream)) << "a product that is recorded";
  const bool there =
      device_->Holds(p.a_data, SizeOf(p.a)) && device_->Holds(p.b_data, SizeOf(p.b)) &&
      device_->Holds(p.c_data, SizeOf(p.c)) && device_->Holds(p.d_data, SizeOf(p.d)) &&
      device_->Holds(p.workspace, p.workspace_bytes);
  EXPECT_TRUE(there) << "an operand is not in memory of the device";
  return there;
}

std::vector<std::string> FakeF16Library::Libraries() { return {SLUICE_FAKE_CUBLASLT}; }

}  // namespace sluice::test
