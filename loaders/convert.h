// From a checkpoint to a .sluice file, in bounded memory.
#ifndef SLUICE_LOADERS_CONVERT_H_
#define SLUICE_LOADERS_CONVERT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "formats/output_file.h"
#include "formats/status.h"
#include "formats/weight_type.h"

namespace sluice {

// What becomes of matrices. Norms and biases always stay as they are.
struct QuantizationPlan {
  enum class Mode : uint8_t {
    kAuto,  // quantized sources are kept; float sources become kMixed
    kKeep,  // every tensor in the type of its source
    kF16,
    kInt8,   // groups of 32
    kInt4,   // embedding and head too
    kMixed,  // int4, but embedding and head int8 in groups of 32
  };
  Mode mode = Mode::kAuto;
  uint16_t int4_group = 128;  // 64 or 32 where it does not divide the row
  bool int4_symmetric = false;
};

// "auto", "keep", "f16", "int8", "int4[:g32|:g64|:g128][:sym]", "mixed[:...]".
// Error: kInvalidArgument that lists these.
Result<QuantizationPlan> ParseQuantization(std::string_view text);

struct ConvertProgress {
  uint64_t done_bytes = 0;  // of the source
  uint64_t total_bytes = 0;
  std::string_view tensor;
};

struct ConvertOptions {
  QuantizationPlan quantization;
  // Go on where an earlier conversion of this source to this output, with the same quantization,
  // ended: by a kill, a full disk, a loss of power.
  bool resume = false;
  // An output that is there is an error, unless an earlier run that is to be resumed finished it.
  bool keep_existing = false;
  uint64_t max_ram_bytes = uint64_t{1} << 30;
  int threads = 0;  // 0: one for each processor
  // One call at a time, from any thread; false ends the conversion.
  std::function<bool(const ConvertProgress&)> progress;
  FileSystem* files = SystemFiles();
  // Said where a conversion ends early and what is done is kept.
  std::string how_to_go_on = "--resume goes on";
};

struct ConvertReport {
  uint64_t source_bytes = 0;
  uint64_t file_bytes = 0;
  uint64_t tensors = 0;
  double seconds = 0;
  bool was_finished = false;  // by an earlier run: nothing was left to do
  std::string description;    // of the source
};

// Nothing stands under `output_path` unless the conversion succeeded. What was finished stays
// beside it, to be resumed, when it ends early for a reason that can pass (kIo, kCancelled,
// kOutOfMemory). The bytes written depend on source and quantization, on no other option.
// Errors: those of Checkpoint::Open and SluiceWriter; kInvalidArgument (keep_existing); kCorrupt
// for a value that is no number, with tensor, row and column; kDoesNotFit (memory, disk);
// kCancelled.
Result<ConvertReport> ConvertCheckpoint(const std::string& source_path,
                                        const std::string& output_path,
                                        const ConvertOptions& options);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CONVERT_H_
