// Passes of a device that were recorded, to be started as a whole: a pass over few tokens is
// hundreds of short kernels, whose starts would take longer than their work.
#ifndef SLUICE_RUNTIME_PASS_GRAPHS_H_
#define SLUICE_RUNTIME_PASS_GRAPHS_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "formats/status.h"
#include "offload/device.h"

namespace sluice {

// What the kernels of a pass are started with, beside addresses that never change.
struct PassShape {
  int64_t tokens = 0;          // each of another sequence
  int64_t longest_length = 0;  // or more
  bool operator==(const PassShape&) const = default;
};

// The shape under which a pass can be recorded: a decode step of at most 64 sequences. Lengths are
// rounded up to a power of two of the attention's partitions, and bounded by the context, so that a
// recording serves long. None for other passes.
std::optional<PassShape> RecordableShape(int64_t tokens, int64_t longest_run,
                                         int64_t longest_length, int64_t context_tokens);

// One thread. `device` and `stream` outlive it.
class PassGraphs {
 public:
  // Recordings take device memory that nobody can say before. One is made only where the device's
  // bound leaves this much beside the earlier ones.
  static constexpr uint64_t kRoomBytes = uint64_t{64} << 20;
  static constexpr size_t kMostGraphs = 16;  // the one that was not used for longest goes

  PassGraphs(Device* device, DeviceStream* stream) : device_(device), stream_(stream) {}

  // Does what `layers` asks of the stream: by a recording of this shape, or by calling it. The
  // second pass in a row of a shape is recorded. Where recording fails, `layers` is called as if
  // there were none, now and from then on. Errors: those of `layers` and of the device.
  Status Run(const PassShape& shape, const std::function<Status()>& layers);

 private:
  struct Entry {
    PassShape shape;
    DeviceGraph graph;
    uint64_t taken_bytes = 0;
    int64_t last_use = 0;
  };

  // Null where there is no room for it, or it cannot be made.
  Result<Entry*> Record(const PassShape& shape, const std::function<Status()>& layers);
  void DropOldest();

  Device* device_;
  DeviceStream* stream_;
  std::vector<Entry> entries_;
  std::optional<PassShape> last_;
  int64_t passes_ = 0;
  uint64_t taken_bytes_ = 0;
  bool enabled_ = true;
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_PASS_GRAPHS_H_
