// NumPy's .npy, version 1.0 (numpy.lib.format): what tests and tools exchange arrays in.
#ifndef SLUICE_FORMATS_NPY_H_
#define SLUICE_FORMATS_NPY_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/dtype.h"
#include "formats/status.h"

namespace sluice {

// Writes one float32 array piece by piece: the shape is known first, the values follow in
// row-major order, or each at its place. Not thread-safe. Without Finish the file is incomplete,
// and begins with zeros, so that no reader takes it for an array.
class NpyWriter {
 public:
  // Creates or replaces the file. Errors: kIo, kInvalidArgument (a shape that overflows, a pipe).
  static Result<NpyWriter> Create(const std::string& path, const std::vector<uint64_t>& shape);
  NpyWriter(NpyWriter&& other) noexcept;
  NpyWriter& operator=(NpyWriter&& other) noexcept;
  ~NpyWriter();

  // Errors: kIo, kInvalidArgument (more values than the shape has).
  Status Append(std::span<const float> values);
  // Values from that one on, counted in row-major order. Each is written once, by Append or by
  // this. Errors: the same.
  Status WriteAt(uint64_t first_value, std::span<const float> values);
  // Writes the header, and closes the file. Errors: kIo, kInvalidArgument (values are missing).
  Status Finish();

 private:
  NpyWriter(int descriptor, std::string path, std::string header, uint64_t values);
  int descriptor_ = -1;
  std::string path_;
  std::string header_;
  uint64_t values_ = 0;
  uint64_t values_left_ = 0;
  uint64_t appended_ = 0;
};

struct NpyArray {
  DType type = DType::kF32;  // kF32 or kI64
  std::vector<uint64_t> shape;
  std::vector<float> floats;  // when kF32
  std::vector<int64_t> ints;  // when kI64
};

// Reads a whole array, C order, little-endian. Errors: kNotFound, kIo, kCorrupt, kTruncated,
// kUnsupported (another type or order), kLimitExceeded (more than 1 GiB).
Result<NpyArray> ReadNpy(const std::string& path);

}  // namespace sluice

#endif  // SLUICE_FORMATS_NPY_H_
