// The bounds on what an untrusted input may cost: no input takes over a second of processor time,
// or more than 16 times its size in memory.
#ifndef SLUICE_TESTS_FUZZ_MEASURED_INPUT_H_
#define SLUICE_TESTS_FUZZ_MEASURED_INPUT_H_

#include <cstddef>
#include <cstdint>

namespace sluice {

// Aborts at its end if the thread has exceeded a bound since its beginning. Memory is what was
// allocated at its highest, beyond what was held at the beginning; it is known in the builds with a
// sanitizer only, by the sanitizer's hooks.
class MeasuredInput {
 public:
  // What reading costs whatever the size of the input: tables, buffers of one line.
  static constexpr size_t kFixedBytes = 64 << 10;
  // Bytes of memory for each byte of the input.
  static constexpr size_t kFactor = 16;
  explicit MeasuredInput(size_t size_bytes, size_t factor = kFactor,
                         size_t fixed_bytes = kFixedBytes);
  ~MeasuredInput();
  MeasuredInput(const MeasuredInput&) = delete;
  MeasuredInput& operator=(const MeasuredInput&) = delete;

 private:
  size_t bound_bytes_;
  int64_t held_before_;
  int64_t began_ns_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FUZZ_MEASURED_INPUT_H_
