// A device of the host that fails when told to, and is as late as a device may be: queued work is
// done only when something waits for it. Its memory is out of the host's reach: a page that nobody
// may read or write, but while a copy or a kernel runs, with such pages before and behind. So what
// forgets a copy faults here as it does with a GPU. A copy whose sides are not where its direction
// says, or overlap, is an error.
#ifndef SLUICE_TESTS_SUPPORT_FAKE_DEVICE_H_
#define SLUICE_TESTS_SUPPORT_FAKE_DEVICE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "offload/device.h"

namespace sluice::test {

struct DeviceFaults {
  int64_t fail_allocation = -1;  // the allocation of that number, from 0, finds no memory
  int64_t lost_at_call = -1;     // the call of that number, from 0, and all later ones fail
  int64_t fail_graph = -1;       // the recording of that number, from 0, cannot be made
  uint64_t graph_bytes = 0;      // of its memory that a recording takes
  uint64_t memory_bytes = uint64_t{1} << 30;
  uint64_t own_bytes = 0;  // what it says that it took for itself
};

// One thread.
class FakeDevice final : public Device {
 public:
  explicit FakeDevice(const DeviceFaults& faults = {}) : faults_(faults) {}
  ~FakeDevice() override;

  // What was asked for so far, and what was not given back.
  int64_t calls() const { return calls_; }
  int64_t allocations() const { return allocations_; }
  int64_t live_objects() const { return live_objects_; }

  // Does the work of the stream so far: what a kernel that is started on it would see.
  void CatchUp(CUstream_st* stream);
  bool lost() const { return faults_.lost_at_call >= 0 && calls_ > faults_.lost_at_call; }
  bool HasStream(CUstream_st* stream) const;
  // Whether the bytes lie in one allocation of device memory.
  bool Holds(const void* data, uint64_t size_bytes) const;
  // Whether what the stream is given is recorded now; kernels that are asked for then are given to
  // Record instead of being run, and run in their place whenever the recording is started.
  bool recording(CUstream_st* stream) const;
  void Record(CUstream_st* stream, std::function<void()> kernel);
  // Recordings that were made, and how often one was started.
  int64_t graphs() const { return graphs_; }
  int64_t graph_launches() const { return graph_launches_; }
  // That copies to the host were asked for.
  uint64_t bytes_to_host() const { return bytes_to_host_; }
  // The most device memory that was ever held at once.
  uint64_t peak_bytes() const { return peak_bytes_; }

  // Lets the host at the device's memory, for as long as it lives. Nests.
  class Access {
   public:
    explicit Access(FakeDevice* device) : device_(device) { device_->Open(1); }
    ~Access() { device_->Open(-1); }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

   private:
    FakeDevice* device_;
  };

  std::string name() const override { return "fake"; }
  uint64_t own_bytes() const override { return faults_.own_bytes; }
  Result<DeviceMemory> Memory() override;

 protected:
  Result<std::byte*> AllocateBytes(uint64_t size_bytes, MemorySpace space) override;
  void FreeBytes(std::byte* data, uint64_t size_bytes, MemorySpace space) override;
  Result<CUstream_st*> MakeStream() override;
  void EndStream(CUstream_st* stream) override;
  Result<CUevent_st*> MakeEvent() override;
  void EndEvent(CUevent_st* event) override;
  Status Copy(CUstream_st* stream, void* to, const void* from, uint64_t size_bytes,
              CopyDirection direction) override;
  Status CopyRows(CUstream_st* stream, void* to, const void* from, uint64_t pitch_bytes,
                  uint64_t row_bytes, uint64_t rows) override;
  Status Fill(CUstream_st* stream, void* to, uint8_t value, uint64_t size_bytes) override;
  Status Record(CUstream_st* stream, CUevent_st* event) override;
  Status Wait(CUstream_st* stream, CUevent_st* event) override;
  Status Synchronize(CUstream_st* stream) override;
  Result<bool> Done(CUevent_st* event) override;
  Status Synchronize(CUevent_st* event) override;
  Result<double> SecondsBetween(CUevent_st* earlier, CUevent_st* later) override;
  Status BeginCapture(CUstream_st* stream) override;
  Result<CUgraphExec_st*> EndCapture(CUstream_st* stream) override;
  void EndGraph(CUgraphExec_st* graph) override;
  Status Launch(CUstream_st* stream, CUgraphExec_st* graph) override;

 private:
  using Work = std::deque<std::function<void()>>;
  struct Stream {
    Work work;
    bool busy = false;  // its work is being done, in order
    std::optional<Work> recording;
  };
  struct Graph {
    std::shared_ptr<const Work> work;
  };
  struct Event {
    Stream* stream = nullptr;
    int64_t recorded = 0;  // times asked for, and done
    int64_t done = 0;
  };

  struct Mapping {
    std::byte* begin;
    uint64_t size_bytes;
  };
  Status CheckCopy(const void* to, const void* from, uint64_t size_bytes,
                   CopyDirection direction) const;
  void Open(int change);
  Status Call(const char* what);
  // Calls that a stream cannot record.
  Status CallOutsideRecording(CUstream_st* stream, const char* what);
  // Queues or records.
  static void Give(CUstream_st* stream, std::function<void()> work);
  void CatchUp(Event* event, int64_t until);

  const DeviceFaults faults_;
  int64_t calls_ = 0;
  int64_t allocations_ = 0;
  int64_t live_objects_ = 0;
  int open_ = 0;
  std::map<std::byte*, Mapping> memory_;  // by the data that was given out
  std::map<std::byte*, uint64_t> sizes_;
  std::set<CUstream_st*> streams_;
  uint64_t held_bytes_ = 0;
  uint64_t peak_bytes_ = 0;
  uint64_t bytes_to_host_ = 0;
  int64_t graphs_ = 0;
  int64_t graph_launches_ = 0;
  uint64_t graph_held_bytes_ = 0;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_FAKE_DEVICE_H_
