// A stack of its own for a function that can pause.
#ifndef SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FIBER_H_
#define SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FIBER_H_

#include <cstddef>

namespace sluice::test {

// Runs a function that may call Pause; Resume returns when it does, or when it ends. A fiber can be
// started again after its function ended. Not for use by two threads.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void Start(void (*function)());
  void Resume();
  bool ended() const { return ended_; }

  // Back to Resume; from inside a fiber.
  static void Pause();

 private:
  static void Main();
  void SwitchIn();
  void SwitchOut(bool last);

  std::byte* stack_ = nullptr;
  void* pointer_ = nullptr;  // of the stack, while paused
  void (*function_)() = nullptr;
  bool ended_ = true;
  void* outer_pointer_ = nullptr;
  // What the address sanitizer wants to know of both stacks.
  [[maybe_unused]] void* fake_stack_ = nullptr;
  [[maybe_unused]] void* outer_fake_stack_ = nullptr;
  [[maybe_unused]] const void* outer_bottom_ = nullptr;
  [[maybe_unused]] size_t outer_size_ = 0;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_CUDA_EMULATION_FIBER_H_
