// A Storage whose reads go wrong as a test says.
#ifndef SLUICE_TESTS_SUPPORT_FAULTY_STORAGE_H_
#define SLUICE_TESTS_SUPPORT_FAULTY_STORAGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "offload/storage.h"

namespace sluice::testing {

struct Fault {
  // Called after each read with its number (from 0) and what came; may change the buffer and what
  // is reported, or sleep. On the thread that waits.
  using Hook = std::function<void(uint64_t number, const StorageRead& read, int64_t* result)>;
  Hook hook;  // none: nothing goes wrong
  uint32_t alignment = 4096;
  int depth = 4;
  uint32_t seed = 1;             // of the order in which reads come back
  bool may_be_given_up = false;  // with reads on their way
};

// Reads the file at `path` with pread. Checks what Storage asks of its caller (alignment, depth),
// and fails the test where it is broken. Errors: kIo.
Result<std::unique_ptr<Storage>> OpenFaultyStorage(const std::string& path, const Fault& fault);

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_SUPPORT_FAULTY_STORAGE_H_
