// safetensors: an 8-byte little-endian header length, a JSON header, raw row-major data.
// Specification: huggingface/safetensors, README. Read here with all of its rules, because files
// that break them mean different things to different readers.
#ifndef SLUICE_FORMATS_SAFETENSORS_H_
#define SLUICE_FORMATS_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/dtype.h"
#include "formats/mapped_file.h"
#include "formats/status.h"

namespace sluice {

struct SafetensorsTensor {
  std::string name;
  DType type = DType::kF32;
  std::vector<uint64_t> shape;  // outermost first; empty is a scalar, a dimension may be 0
  uint64_t offset_bytes = 0;    // in the file
  uint64_t size_bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;       // in the order of their data
  std::map<std::string, std::string> metadata;  // __metadata__
};

// Reads and validates the header. Guaranteed of what it returns: names are unique, sizes agree with
// shape and type, and the tensors tile the data without a gap or an overlap, to the file's last
// byte. Errors: kTruncated, kCorrupt, kUnsupported (a type that is not in DType), kLimitExceeded (a
// header above 100 MB, more than 8 dimensions), kIo. Each names the source and the tensor.
Result<SafetensorsHeader> ReadSafetensorsHeader(const ByteSource& source);

// `model.safetensors.index.json`: tensor name to file name. File names are plain: no '/', no "..".
// The text is untrusted. Errors: kCorrupt, kLimitExceeded; they name the tensor or the file.
Result<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view json);

}  // namespace sluice

#endif  // SLUICE_FORMATS_SAFETENSORS_H_
