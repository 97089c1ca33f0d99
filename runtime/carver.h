// Hands out aligned ranges of one piece of memory.
#ifndef SLUICE_RUNTIME_CARVER_H_
#define SLUICE_RUNTIME_CARVER_H_

#include <cstddef>
#include <cstdint>

#include "formats/checked.h"

namespace sluice {

// Touches nothing. From a null base it only counts: offset() is the size that is needed.
class Carver {
 public:
  static constexpr uint64_t kAlignment = 64;

  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  T* Take(int64_t count) {
    std::byte* range = base_ == nullptr ? nullptr : base_ + offset_;
    offset_ = RoundUp(offset_ + static_cast<uint64_t>(count) * sizeof(T), kAlignment);
    return reinterpret_cast<T*>(range);
  }
  uint64_t offset() const { return offset_; }

 private:
  std::byte* base_;
  uint64_t offset_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_CARVER_H_
