#include "tests/support/cuda_emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define SLUICE_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLUICE_FIBER_ASAN 1
#endif
#endif
#ifdef SLUICE_FIBER_ASAN
extern "C" {  // the interface of sanitizer/asan_interface.h and common_interface_defs.h
void __asan_unpoison_memory_region(void const volatile*, size_t);
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom_old,
                                     size_t* size_old);
}
#endif

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace sluice::test {
namespace {

constexpr size_t kStackBytes = 256 << 10;
thread_local Fiber* current = nullptr;

}  // namespace

#ifdef __x86_64__

// swapcontext enters the kernel to exchange signal masks; a test makes millions of switches.
extern "C" void sluice_switch_stack(void** save_pointer, void* pointer);
asm(R"(
.text
.globl sluice_switch_stack
.type sluice_switch_stack, @function
sluice_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sluice_switch_stack, .-sluice_switch_stack
)");

namespace {

// A stack from which sluice_switch_stack returns into `entry`.
void* PrepareStack(std::byte* stack, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // so that the stack is aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  return top;
}

void SwitchStack(void** save, void* to) { sluice_switch_stack(save, to); }

}  // namespace

#else

namespace {

void* PrepareStack(std::byte* stack, void (*entry)()) {
  auto* context = reinterpret_cast<ucontext_t*>(stack);
  getcontext(context);
  const size_t used = (sizeof(ucontext_t) + 63) / 64 * 64;
  context->uc_stack.ss_sp = stack + used;
  context->uc_stack.ss_size = kStackBytes - used;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

void SwitchStack(void** save, void* to) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

}  // namespace

#endif

Fiber::Fiber() {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("a stack for a fiber");
    std::abort();
  }
  stack_ = static_cast<std::byte*>(memory);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::Start(void (*function)()) {
  function_ = function;
  ended_ = false;
#ifdef SLUICE_FIBER_ASAN
  // The last function never returned, so its frame is still marked.
  __asan_unpoison_memory_region(stack_ + kStackBytes - 4096, 4096);
#endif
  pointer_ = PrepareStack(stack_, &Fiber::Main);
}

void Fiber::SwitchIn() {
#ifdef SLUICE_FIBER_ASAN
  __sanitizer_start_switch_fiber(&outer_fake_stack_, stack_, kStackBytes);
#endif
  SwitchStack(&outer_pointer_, pointer_);
#ifdef SLUICE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(outer_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::SwitchOut([[maybe_unused]] bool last) {
#ifdef SLUICE_FIBER_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &fake_stack_, outer_bottom_, outer_size_);
#endif
  SwitchStack(&pointer_, outer_pointer_);
#ifdef SLUICE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &outer_bottom_, &outer_size_);
#endif
}

void Fiber::Resume() {
  Fiber* const outer = current;
  current = this;
  SwitchIn();
  current = outer;
}

void Fiber::Pause() { current->SwitchOut(false); }

void Fiber::Main() {
  Fiber* const self = current;
#ifdef SLUICE_FIBER_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->outer_bottom_, &self->outer_size_);
#endif
  self->function_();
  self->ended_ = true;
  self->SwitchOut(true);
}

}  // namespace sluice::test
