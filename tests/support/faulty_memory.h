// Memory that runs out as a test says.
#ifndef SLUICE_TESTS_SUPPORT_FAULTY_MEMORY_H_
#define SLUICE_TESTS_SUPPORT_FAULTY_MEMORY_H_

#include <atomic>
#include <cerrno>
#include <cstdint>

#include "offload/host_arena.h"

namespace sluice::testing {

// While it lives, all arenas take their memory here: allocation `fails_at`, counted from 0, fails.
class FaultyMemory : public MemorySource {
 public:
  explicit FaultyMemory(int fails_at) : fails_at_(fails_at) { UseMemorySource(this); }
  // REQUIRES: the arenas that were made meanwhile are gone.
  ~FaultyMemory() override { UseMemorySource(nullptr); }

  void* Map(uint64_t size_bytes) override {
    if (calls_++ == fails_at_) {
      errno = ENOMEM;
      return nullptr;
    }
    void* memory = MemorySource::Map(size_bytes);
    if (memory != nullptr) mapped_bytes_ += static_cast<int64_t>(size_bytes);
    return memory;
  }
  void Unmap(void* memory, uint64_t size_bytes) override {
    mapped_bytes_ -= static_cast<int64_t>(size_bytes);
    MemorySource::Unmap(memory, size_bytes);
  }

  int calls() const { return calls_; }
  int64_t mapped_bytes() const { return mapped_bytes_; }  // not given back yet

 private:
  const int fails_at_;
  std::atomic<int> calls_ = 0;
  std::atomic<int64_t> mapped_bytes_ = 0;
};

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_FAULTY_MEMORY_H_
