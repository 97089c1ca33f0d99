#include "tests/fuzz/measured_input.h"

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLUICE_HAS_ALLOCATION_HOOKS
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLUICE_HAS_ALLOCATION_HOOKS
#endif
#endif

#ifdef SLUICE_HAS_ALLOCATION_HOOKS
// sanitizer/allocator_interface.h, which gcc 12 does not install beside its own runtime.
extern "C" {
size_t __sanitizer_get_allocated_size(const volatile void* memory);
int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*, size_t),
                                              void (*released)(const volatile void*));
}
#endif

namespace {

// One thread runs a fuzz target.
thread_local int64_t held_bytes = 0;
thread_local int64_t highest_bytes = 0;

#ifdef SLUICE_HAS_ALLOCATION_HOOKS
void CountAllocation(const volatile void*, size_t size) {
  held_bytes += static_cast<int64_t>(size);
  highest_bytes = std::max(highest_bytes, held_bytes);
}

void CountRelease(const volatile void* memory) {
  if (memory == nullptr) return;
  held_bytes -= static_cast<int64_t>(__sanitizer_get_allocated_size(memory));
}

const int hooks = __sanitizer_install_malloc_and_free_hooks(CountAllocation, CountRelease);
#endif

int64_t ThreadNanoseconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

namespace sluice {

MeasuredInput::MeasuredInput(size_t size_bytes, size_t factor, size_t fixed_bytes)
    : bound_bytes_(factor * size_bytes + fixed_bytes),
      held_before_(held_bytes),
      began_ns_(ThreadNanoseconds()) {
  highest_bytes = held_bytes;
}

MeasuredInput::~MeasuredInput() {
#ifdef SLUICE_HAS_ALLOCATION_HOOKS
  if (hooks == 0) std::abort();
#endif
  const int64_t taken_bytes = highest_bytes - held_before_;
  const int64_t taken_ns = ThreadNanoseconds() - began_ns_;
  if (taken_bytes > static_cast<int64_t>(bound_bytes_)) {
    std::fprintf(stderr, "%lld bytes of memory, %zu are allowed\n",
                 static_cast<long long>(taken_bytes), bound_bytes_);
    std::abort();
  }
  if (taken_ns > 1'000'000'000) {
    std::fprintf(stderr, "%lld ms of processor time\n",
                 static_cast<long long>(taken_ns / 1'000'000));
    std::abort();
  }
}

}  // namespace sluice
